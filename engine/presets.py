"""Presets: how long to train, how fast, and which layers, by what a person wants and by task type.

The numbers are those that did best in bench/quality.py; docs/performance.md has its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from engine.task_types import METRICS, TaskType

Goal = Literal["quick", "balanced", "best"]
Settings = dict[str, dict[str, object]]  # by section of a configuration
BATCH = 32  # rows per step of the default configuration


@dataclass(frozen=True, slots=True)
class Preset:
    """What a goal means.

    epochs: passes over many rows. steps: few rows are passed more often, until there are about as many steps, but at most
    most_epochs times. rows: at most as many are trained on; None for all.
    """

    rank: int
    target_modules: str | None
    epochs: int
    steps: int
    most_epochs: int
    rows: int | None = None

    def epochs_for(self, rows: int | None) -> int:
        """Return the passes over so many training rows; None if nobody knows how many there are."""
        if not rows:
            return self.epochs
        steps_per_epoch = ceil(min(rows, self.rows or rows) / BATCH)
        return max(self.epochs, min(self.most_epochs, round(self.steps / steps_per_epoch)))


PRESETS: dict[Goal, Preset] = {
    "quick": Preset(rank=8, target_modules=None, epochs=1, steps=60, most_epochs=3, rows=2000),
    "balanced": Preset(rank=16, target_modules="all-linear", epochs=1, steps=200, most_epochs=6),
    "best": Preset(rank=16, target_modules="all-linear", epochs=3, steps=400, most_epochs=10),
}
LEARNING_RATES: dict[TaskType, float] = {
    "sequence_classification": 1e-3,
    "multi_label_classification": 2e-3,
    "regression": 1e-3,
    "token_classification": 3e-3,
}


def preset_settings(goal: Goal, task: TaskType, rows: int | None = None) -> Settings:
    """Return the settings that a preset owns. rows: of training, windows of entities' texts; None if nobody knows."""
    preset = PRESETS[goal]
    return {
        "lora": {"r": preset.rank, "lora_alpha": 2 * preset.rank, "target_modules": preset.target_modules},
        "data": {"train_samples": preset.rows, "eval_samples": preset.rows and preset.rows // 4},
        "training": {"learning_rate": LEARNING_RATES[task], "num_train_epochs": preset.epochs_for(rows)},
    }


def task_defaults(task: TaskType) -> Settings:
    """Return what a configuration gets where it leaves a value out, if that is not the default of the field itself.

    One label per text keeps the fields' own defaults, so that files of earlier releases mean what they meant. With these,
    entities are not learned from some hundred texts.
    """
    metric: dict[str, object] = {"metric_for_best_model": METRICS[task][0]}
    if task == "sequence_classification":
        return {"training": metric}
    adapter = preset_settings("balanced", task)["lora"]
    return {"lora": adapter, "training": metric | {"learning_rate": LEARNING_RATES[task]}}
