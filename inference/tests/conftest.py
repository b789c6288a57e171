"""The model that was really trained, as an experiment."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.utils import timezone

from engine import RunConfig
from experiments.models import Experiment, ModelVersion, RegisteredModel
from experiments.registry.labels import label_set
from inference.generation import generator
from inference.services import predictor
from testing.adapters import make_adapter
from testing.language_models import build_language_model
from testing.registered import register_language_model

PRICE_THRESHOLDS = {"thresholds": [0.3, 0.5, 0.9], "temperatures": [1.0, 2.0, 1.0]}


@pytest.fixture
def model(trained: Path, member: Any) -> Experiment:
    """The member's experiment `small`, ready to answer."""
    experiment = Experiment.objects.create(
        name="small",
        owner=member,
        dataset_name="tweets@1",
        base_model=RunConfig.parse({}).model.name,
        accuracy=0.5,
        score=0.5,
    )
    shutil.copytree(trained, experiment.folder)
    return experiment


@pytest.fixture(scope="session")
def sentences(tweets: Path) -> list[str]:
    """Twelve real tweets."""
    return pl.read_csv(tweets)["text"].head(12).to_list()


@pytest.fixture
def fresh_predictor() -> None:
    """No model of an earlier test is in memory."""
    predictor.cache_clear()


def register_adapter(
    owner: Any, name: str, labels: list[str], made: Path | None = None, **adapter: Any
) -> ModelVersion:
    """Register a model with random weights. made: its folder, if it is there. adapter: arguments of make_adapter."""
    task = adapter.get("task", "sequence_classification")
    model = RegisteredModel.objects.create(
        name=name,
        owner=owner,
        base_model="b",
        updated_at=timezone.now(),
        label_set=label_set(labels),
        task_type=task,
    )
    version = ModelVersion.objects.create(
        model=model, number=1, author=owner, labels=labels, base_model="b", config={"task": task}, task_type=task
    )
    if made is None:
        make_adapter(version.folder, labels, **{"seed": 1} | adapter)
    else:
        shutil.copytree(made, version.folder)
    model.latest = version
    model.save()
    return version


MULTI: dict[str, Any] = {
    "task": "multi_label_classification",
    "answers": PRICE_THRESHOLDS | {"confident_from": 0.9},
}
SCORE: dict[str, Any] = {"task": "regression", "answers": {"score_mean": 3.0, "score_deviation": 1.5}}
# Labels and arguments of make_adapter by the model's name.
MODELS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "single": (["bad", "good"], {}),
    "pairs": (["no", "yes"], {"text_pairs": True}),
    "multi": (["noise", "price", "staff"], MULTI),
    "score": ([], SCORE),
    "pair-score": ([], SCORE | {"text_pairs": True}),
}


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of MODELS, made once."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: make_adapter(folder / name, labels, **{"seed": 1} | adapter) for name, (labels, adapter) in MODELS.items()
    }


@pytest.fixture
def models(member: Any, fresh_predictor: None, adapters: dict[str, Path]) -> dict[str, ModelVersion]:
    """A registered model of each task type, and of single labels and of scores one that reads pairs of texts."""
    return {
        name: register_adapter(member, name, labels, adapters[name], **adapter)
        for name, (labels, adapter) in MODELS.items()
    }


@pytest.fixture
def tiny(language_bases: Path, settings: Any) -> Iterator[str]:
    """The name of a base model on this machine."""
    settings.BASE_MODELS_DIR = language_bases
    generator.cache_clear()
    yield "tiny"
    generator.cache_clear()


@pytest.fixture
def bare(tmp_path: Path, settings: Any) -> Iterator[str]:
    """The name of a base model on this machine that has no chat template."""
    build_language_model(tmp_path / "bare", template=None)
    settings.BASE_MODELS_DIR = tmp_path
    generator.cache_clear()
    yield "bare"
    generator.cache_clear()


@pytest.fixture
def registered(tiny: str, language_bases: Path, member: Any) -> ModelVersion:
    """The member's registered language model `assistant`."""
    return register_language_model(member, "assistant", language_bases / tiny)
