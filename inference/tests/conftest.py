"""A model that was really trained, once for all tests of this folder."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from experiments.models import Experiment
from training.engine import RunConfig, train

CONFIG = {
    "lora": {"r": 4, "layers_to_transform": [4, 5]},
    "data": {"text_column": "text", "label_column": "sentiment", "max_length": 24, "eval_samples": 60},
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 0.002},
    "system": {"baseline": False},
}


@pytest.fixture(scope="session")
def trained(tweets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a small run on real tweets."""
    results = tmp_path_factory.mktemp("trained") / "small"
    list(train(RunConfig.parse(CONFIG), data_file=tweets, results=results))
    return results


@pytest.fixture
def model(trained: Path, member: Any) -> Experiment:
    """The member's experiment `small`, ready to answer."""
    experiment = Experiment.objects.create(
        name="small", owner=member, dataset_name="tweets@1", base_model=RunConfig.parse({}).model.name, accuracy=0.5
    )
    shutil.copytree(trained, experiment.folder)
    return experiment


@pytest.fixture(scope="session")
def sentences(tweets: Path) -> list[str]:
    """Twelve real tweets."""
    return pl.read_csv(tweets)["text"].head(12).to_list()
