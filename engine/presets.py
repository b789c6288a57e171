"""Presets: how long to train, how fast, and which layers, by what a person wants, by task type and by the number of rows.

The numbers are those that did best in bench/quality.py; docs/performance.md has its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from engine.config_sections import LoraSection, TrainingSection
from engine.task_types import METRICS, TaskType, is_language_model
from samples import SAMPLE_LANGUAGE_MODEL

Goal = Literal["quick", "balanced", "best"]
Settings = dict[str, dict[str, object]]  # by section of a configuration
BATCH = 32  # rows of a step
SMALL_BATCH = 16  # where there are few rows: twice as many steps for the same work
FEW_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Preset:
    """What a goal means.

    is_regularised: single labels are trained with REGULARISED instead of the defaults of the fields.
    epochs: passes over many rows. steps: few rows are passed more often, until there are so many steps, but at most
    most_epochs times. highest_rate: a longer training does better with a lower rate. rows: at most as many are trained on; None
    for all.
    """

    rank: int
    target_modules: str | None
    epochs: int
    steps: int
    most_epochs: int
    highest_rate: float = 1.0
    rows: int | None = None
    is_regularised: bool = False

    def epochs_for(self, rows: int, batch: int) -> int:
        """Return the passes over so many training rows."""
        return max(self.epochs, min(self.most_epochs, ceil(self.steps * batch / rows)))


PRESETS: dict[Goal, Preset] = {
    "quick": Preset(rank=8, target_modules=None, epochs=1, steps=60, most_epochs=3, rows=2000),
    "balanced": Preset(rank=16, target_modules="all-linear", epochs=1, steps=200, most_epochs=5),
    "best": Preset(
        rank=16, target_modules="all-linear", epochs=3, steps=400, most_epochs=8, highest_rate=1e-3, is_regularised=True
    ),
}
# Against learning noise by heart in many passes over few rows. All presets own these fields, so that each undoes another.
REGULARISED: Settings = {
    "lora": {"lora_dropout": 0.3},
    "training": {"lr_scheduler_type": "cosine", "warmup_ratio": 0.2, "label_smoothing_factor": 0.2},
}
LEARNING_RATES: dict[TaskType, float] = {
    "sequence_classification": 1e-3,
    "multi_label_classification": 2e-3,
    "regression": 1e-3,
    "token_classification": 2e-3,
    "causal_lm": 1e-3,
    "preference": 1e-4,
}
COLUMNS: dict[TaskType, dict[str, object]] = {
    "causal_lm": {"text_column": "messages", "label_column": "completion"},
    "preference": {"text_column": "prompt", "label_column": "chosen"},
}


def preset_settings(goal: Goal, task: TaskType, rows: int | None = None) -> Settings:
    """Return the settings that a preset owns. rows: of training; None, which means many, if nobody knows."""
    preset = PRESETS[goal]
    trained_rows = min(rows or FEW_ROWS, preset.rows or rows or FEW_ROWS)
    batch = SMALL_BATCH if trained_rows < FEW_ROWS else BATCH
    # Neither entities nor answers are learned by query and value alone.
    modules = "all-linear" if task == "token_classification" or is_language_model(task) else preset.target_modules
    is_regularised = preset.is_regularised and task == "sequence_classification"
    regularisation = REGULARISED
    if not is_regularised:  # the values that the same fields have where a configuration leaves them out
        fields = {"lora": LoraSection.model_fields, "training": TrainingSection.model_fields}
        regularisation = {
            section: {name: fields[section][name].default for name in values} for section, values in REGULARISED.items()
        }
    return {
        "lora": {"r": preset.rank, "lora_alpha": 2 * preset.rank, "target_modules": modules} | regularisation["lora"],
        "data": {"train_samples": preset.rows, "eval_samples": preset.rows and preset.rows // 4},
        "training": {
            "learning_rate": min(LEARNING_RATES[task], preset.highest_rate),
            "num_train_epochs": preset.epochs_for(trained_rows, batch) if rows else preset.epochs,
            "per_device_train_batch_size": batch,
        }
        | regularisation["training"],
    }


def task_defaults(task: TaskType) -> Settings:
    """Return what a configuration gets where it leaves a value out, if that is not the default of the field itself.

    One label per text keeps the fields' own defaults, so that files of earlier releases mean what they meant. With these,
    entities are not learned from some hundred texts.
    """
    training: dict[str, object] = {"metric_for_best_model": METRICS[task][0]}
    if task == "sequence_classification":
        return {"training": training}
    training["learning_rate"] = LEARNING_RATES[task]
    lora: dict[str, object] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    if task == "token_classification" or is_language_model(task):
        training["per_device_train_batch_size"] = SMALL_BATCH
    if is_language_model(task):
        data = COLUMNS[task] | {"max_length": 1024}
        return {"model": {"name": SAMPLE_LANGUAGE_MODEL}, "lora": lora, "data": data, "training": training}
    return {"lora": lora, "training": training}
