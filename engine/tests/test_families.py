"""Tiny models of several families learn texts and entities, and are served and computed by plain PEFT as they were evaluated.

bench/architectures.py does the same for every type that transformers has.
"""

from pathlib import Path

import pytest
import torch

from engine.serve.predictor import Predictor
from engine.task_types import METRICS, TaskType
from engine.tests.conftest import metrics_of, run, small
from testing.telling_texts import ROWS, TRAINING_ROWS, make_row, write_rows
from testing.tiny_architectures import build_tiny

SETTINGS = {  # by task type: entities need more, because each token has to be told apart
    "sequence_classification": {"max_steps": 60, "learning_rate": 0.005},
    "token_classification": {"max_steps": 100, "learning_rate": 0.01},
}


@pytest.mark.slow
@pytest.mark.parametrize("task", SETTINGS)
@pytest.mark.parametrize("family", ["esm", "modernvbert", "mpt", "qwen3", "t5", "xlnet"])
def test_family_learns_and_answers_alone_as_in_a_batch(family: str, task: TaskType, tmp_path: Path) -> None:
    build_tiny(tmp_path / family, family)
    config = small(
        task=task,
        model={"name": family},
        data={"train_samples": None, "eval_samples": None, "max_length": 256},
        lora={
            "r": 8,
            "lora_dropout": 0.0,
            "layers_to_transform": None,
            "target_modules": "all-linear" if task == "token_classification" else None,
        },
        training=SETTINGS[task]
        | {
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "precision": "fp32",
            "metric_for_best_model": METRICS[task][0],
            "eval_strategy": "no",
            "save_strategy": "no",
        },
    )
    metrics = metrics_of(run(config, write_rows(tmp_path, task), tmp_path / "run", base_models_dir=tmp_path))
    assert metrics["eval"][METRICS[task][0]] > 0.5
    assert metrics["saved_model"]["served"] and metrics["saved_model"]["difference"] < 1e-4
    assert not [notice for notice in metrics["notices"] if notice["code"] == "program_differs"]

    predictor = Predictor(tmp_path)
    final = tmp_path / "run/artifacts/final_model"
    texts = [make_row(task, fillers)["text"] for fillers in (1, 4, 11, 40)]
    alone = torch.cat([predictor.logits(final, [text]) for text in texts])
    assert torch.allclose(predictor.logits(final, texts), alone, atol=1e-4)


def test_long_text_is_among_the_training_and_among_the_held_out_texts(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.read_parquet(write_rows(tmp_path, "sequence_classification"))
    longest = frame.group_by("split").agg(pl.col("text").str.len_chars().max())["text"].to_list()
    assert len(frame) == ROWS and min(longest) > 600 and (frame["split"] == "train").sum() == TRAINING_ROWS
