"""Real tweets on the real sample base model, as few as the behaviour needs."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from samples import tweets_en
from training.engine import Event, Finished, RunConfig, train


@pytest.fixture(scope="session")
def tweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tweets.parquet"
    frame = tweets_en().filter(pl.col("confidence") > 0.7).unique("text", keep="first", maintain_order=True)
    frame.sample(400, seed=3).select("text", "label").write_parquet(path)
    return path


def small(**sections: Any) -> RunConfig:
    """A run of eight steps in two epochs, with dropout and accumulation; sections add to it."""
    base: dict[str, dict[str, Any]] = {
        "lora": {"r": 4, "lora_dropout": 0.1, "layers_to_transform": [4, 5]},
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
    names = {key: value for key, value in sections.items() if not isinstance(value, dict)}
    merged = {key: {**values, **sections.get(key, {})} for key, values in base.items()}
    return RunConfig.parse(merged | names)


def run(config: RunConfig, data_file: Path, results: Path, **more: Any) -> list[Event]:
    return list(train(config, data_file=data_file, results=results, **more))


def metrics_of(events: list[Event]) -> dict[str, Any]:
    return next(event.metrics for event in events if isinstance(event, Finished))
