"""Real tweets on the real sample base model, as few as the behaviour needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine import Event, Finished, RunConfig, train
from engine.errors import RunInterruptedError
from samples import base_model_path, tweets_en


@pytest.fixture(scope="session")
def tweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tweets.parquet"
    frame = tweets_en().filter(pl.col("confidence") > 0.7).unique("text", keep="first", maintain_order=True)
    frame.sample(400, seed=3).select("text", "label").write_parquet(path)
    return path


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two base models: "tiny" has two layers with random weights; "still" is the sample without dropout."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertForSequenceClassification(config).save_pretrained(folder / "tiny")
    AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(folder / "tiny")
    shutil.copytree(base_model_path(), folder / "still")
    base_config = json.loads((folder / "still/config.json").read_text())
    without_dropout = base_config | {"hidden_dropout_prob": 0.0, "classifier_dropout": 0.0}
    (folder / "still/config.json").write_text(json.dumps(without_dropout))
    return folder


def small(**sections: Any) -> RunConfig:
    """Return the configuration of a run of eight steps in two epochs, with dropout and accumulation; sections add to it."""
    base: dict[str, dict[str, Any]] = {
        "lora": {"r": 4, "lora_dropout": 0.1, "layers_to_transform": [4, 5], "target_modules": None},
        "data": {"train_samples": 32, "eval_samples": 16, "max_length": 24},
        "training": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.005,
            "logging_steps": 1,
        },
        "system": {"baseline": False, "num_threads": 1},
    }
    merged = {key: {**values, **sections.get(key, {})} for key, values in base.items()}
    return RunConfig.parse(sections | merged)


def run(config: RunConfig, data_file: Path, results: Path, **more: Any) -> list[Event]:
    """Train and return all events. more: further arguments of engine.train."""
    return list(train(config, data_file=data_file, results=results, **more))


def metrics_of(events: list[Event]) -> dict[str, Any]:
    return next(event.metrics for event in events if isinstance(event, Finished))


def curves_of(events: list[Event]) -> list[dict[str, Any]]:
    """Return the points of the curves without what depends on the machine: how long they took."""
    history = metrics_of(events)["history"]
    return [{name: value for name, value in point.items() if name != "runtime_s"} for point in history]


def check_resumed_run(settings: RunConfig, data: Path, folder: Path, stop_at: int, **more: Any) -> None:
    """Compare a run that is stopped and resumed with one that is not: the same curves, and the same bytes."""
    without_cache = {name: value for name, value in more.items() if name != "cache_dir"}
    unbroken = run(settings, data, folder / "unbroken", **without_cache)
    calls = iter(range(100))
    with pytest.raises(RunInterruptedError):
        run(settings, data, folder / "stopped", should_save=lambda: next(calls) == stop_at, **more)
    resumed = run(settings, data, folder / "stopped", **more)
    assert curves_of(resumed) == curves_of(unbroken)
    adapters = [folder / name / "artifacts/final_model/adapter_model.safetensors" for name in ("unbroken", "stopped")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def check_divided_run(
    task: Any, settings: RunConfig, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> None:
    """Compare a run whose steps have memory for two rows with one that has enough."""
    plain = run(settings, data, folder / "plain", **more)
    backward = task.backward

    def limited(self: Any, rows: np.ndarray, weight: float) -> Any:
        if len(rows) > 2:
            raise MemoryError
        return backward(self, rows, weight)

    monkeypatch.setattr(task, "backward", limited)
    divided = run(settings, data, folder / "divided", **more)
    assert metrics_of(divided)["system"]["micro_batch"] == 2
    assert metrics_of(divided)["eval"]["loss"] == pytest.approx(metrics_of(plain)["eval"]["loss"], rel=1e-4)
