"""The presets' four architectures go the same line as the sample: trained, evaluated, saved, served, in their language."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from datasets_app.services import create_version
from experiments.models import Experiment
from inference.services import predictor
from samples import reviews_zh
from testing import small_models
from testing.adapters import temperature_of
from training.services import parse_config, submit

pytestmark = pytest.mark.slow
PRESETS = ("distilbert", "roberta", "albert", "bert_chinese")
TARGETS = {"distilbert": {"q_lin", "v_lin"}}
TEXTS = {
    "tweets-en": ["What a lovely day!", "I hate waiting in line for hours."],
    "reviews-zh": ["房间很干净,服务也很好。", "太差了,不会再来。"],
}


@pytest.fixture(scope="session")
def base_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base-models")
    small_models.build_all(root)
    return root


@pytest.fixture
def installation(base_models: Path, settings: Any, member: Any, tweets_csv: Path, tmp_path: Path) -> None:
    """Two small datasets under the samples' names, and the base models of the presets."""
    settings.BASE_MODELS_DIR = base_models
    predictor.cache_clear()
    chinese = tmp_path / "reviews.csv"
    reviews_zh().gather_every(60).write_csv(chinese)
    create_version(user=member, name="tweets-en", file=tweets_csv, filename="tweets.csv")
    create_version(user=member, name="reviews-zh", file=chinese, filename="reviews.csv")


def preset(name: str) -> dict[str, Any]:
    """config/<name>.yaml as it is, with less to do."""
    config = yaml.safe_load((Path(settings.BASE_DIR) / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    config["training"] |= {"max_steps": 6, "learning_rate": 0.01}
    return config | {"system": {"baseline": False, "num_threads": 1}}  # two processes of tests share the cores


def plain_peft(experiment: Experiment, texts: list[str]) -> Any:
    """(texts, labels) probabilities, by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(str(settings.BASE_MODELS_DIR)) / experiment.base_model
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(experiment.labels))
    model = PeftModel.from_pretrained(base, experiment.final_model).eval()
    inputs = AutoTokenizer.from_pretrained(experiment.final_model)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return (model(**inputs).logits / temperature_of(experiment.final_model)).softmax(-1).tolist()


@pytest.mark.django_db(transaction=True)
def test_every_preset_trains_saves_and_answers_in_its_language(installation, run_worker, api, member):
    for name in PRESETS:
        submit(user=member, config=parse_config(preset(name)))
    run_worker()
    for name in PRESETS:
        config = preset(name)
        experiment = Experiment.objects.get(name=config["experiment_name"])
        assert experiment.task.status == "SUCCESS", experiment.task.error
        assert {"best", "last", "fastest"} == set(experiment.metrics["checkpoints"])
        assert set(adapted(experiment)) == TARGETS.get(name, {"query", "value"})
        texts = TEXTS[config["data"]["dataset_name"]]
        answers = api(member).post("/api/predict", {"texts": texts, "model": experiment.name}, format="json").json()
        for answer, expected in zip(answers, plain_peft(experiment, texts), strict=True):
            assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
            assert answer["language"] == ("Chinese" if name == "bert_chinese" else "English")
            assert answer["base_model"] == config["model"]["name"]
    assert predictor().state()["models"] == 4 and len(predictor().state()["base_models"]) == 4


def adapted(experiment: Experiment) -> list[str]:
    return list(json.loads((experiment.final_model / "adapter_config.json").read_text())["target_modules"])


@pytest.mark.django_db(transaction=True)
def test_run_on_chinese_reviews_beats_the_majority_class_and_answers_in_chinese(
    settings, member, tmp_path, run_worker, api
):
    """Without any pretraining, which is not to be had here: 72 % where always the commonest label is right in 54 %."""
    settings.BASE_MODELS_DIR = tmp_path / "bases"
    predictor.cache_clear()
    small_models.build_wide_chinese(settings.BASE_MODELS_DIR / "bert-base-chinese")
    reviews_zh().gather_every(4).write_csv(tmp_path / "reviews.csv")
    create_version(user=member, name="reviews-zh", file=tmp_path / "reviews.csv", filename="reviews.csv")
    config = preset("bert_chinese")
    config["lora"] |= {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    config["data"] |= {"max_length": 64, "eval_samples": 300}
    config["training"] |= {"max_steps": 600, "learning_rate": 0.001, "eval_strategy": "no"}
    submit(user=member, config=parse_config(config | {"system": {"baseline": True, "num_threads": 1}}))
    run_worker()
    experiment = Experiment.objects.get()
    assert experiment.task.status == "SUCCESS", experiment.task.error
    assert experiment.accuracy > experiment.metrics["baseline"]["majority_accuracy"] + 0.1
    sent = {"text": "房间很干净,服务也很好。", "model": experiment.name}
    answer = api(member).post("/api/predict", sent, format="json").json()
    assert answer["language"] == "Chinese" and answer["base_model"] == "bert-base-chinese"
