"""Presets and defaults by task type: what a configuration means where it says little."""

from typing import get_args

import pytest

from engine.config import RunConfig
from engine.presets import PRESETS, REGULARISED, Goal, preset_settings, task_defaults
from engine.task_types import TaskType

TASKS = get_args(TaskType)


def test_file_for_single_labels_without_values_means_what_it_always_did() -> None:
    for text in ("{}", "task: sequence_classification", "task: sequence_classification\ntraining: {seed: 3}"):
        config = RunConfig.from_yaml(text)
        assert (config.lora.r, config.lora.lora_alpha, config.lora.target_modules) == (8, 16, None)
        assert (config.training.learning_rate, config.training.num_train_epochs) == (5e-4, 3)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "sequence_classification"])
def test_left_out_values_of_other_task_types_are_those_that_learn(task: TaskType) -> None:
    config = RunConfig.parse({"task": task, "training": {"seed": 3}, "lora": {"r": 4}})
    defaults = task_defaults(task)
    assert config.training.learning_rate == defaults["training"]["learning_rate"] != 5e-4
    assert config.lora.target_modules == "all-linear" and config.lora.r == 4
    written = RunConfig.parse({"task": task, "training": {"learning_rate": 5e-4}, "lora": {"target_modules": None}})
    assert written.training.learning_rate == 5e-4 and written.lora.target_modules is None


@pytest.mark.parametrize("task", TASKS)
def test_concise_form_is_read_back_as_the_same_configuration(task: TaskType) -> None:
    usual = RunConfig.parse({"task": task})
    assert usual.concise().keys() <= {"experiment_name", "task", "model", "data"}
    single_label_values = {"training": {"learning_rate": 5e-4}, "lora": {"r": 8, "target_modules": None}}
    for config in (usual, RunConfig.parse({"task": task, **single_label_values})):
        assert RunConfig.parse(config.concise()) == config and RunConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("goal", PRESETS)
def test_every_preset_is_a_valid_configuration_of_every_task_type(goal, task) -> None:
    for rows in (None, 50, 100_000):
        settings = preset_settings(goal, task, rows)
        config = RunConfig.parse({"task": task, **settings})
        assert config.training.learning_rate == settings["training"]["learning_rate"]


def test_few_rows_are_passed_more_often_than_many() -> None:
    few, some, many = (PRESETS["balanced"].epochs_for(rows, 32) for rows in (800, 2000, 40_000))
    assert few > some > many == 1
    for rows, epochs in ((40_000, many), (None, many)):
        training = preset_settings("balanced", "regression", rows)["training"]
        assert (training["num_train_epochs"], training["per_device_train_batch_size"]) == (epochs, 32)


def config_of(goal: Goal, task: TaskType) -> RunConfig:
    return RunConfig.parse({"task": task, **preset_settings(goal, task, 400)})


def test_best_regularises_single_labels_alone_and_other_goals_undo_it() -> None:
    best = config_of("best", "sequence_classification")
    balanced = config_of("balanced", "sequence_classification")
    entities = config_of("best", "token_classification")
    assert best.lora.lora_dropout > 0 and best.training.label_smoothing_factor > 0
    assert best.training.lr_scheduler_type == "cosine" and best.training.warmup_ratio > balanced.training.warmup_ratio
    usual = RunConfig()
    for config in (balanced, entities):
        assert config.lora.lora_dropout == usual.lora.lora_dropout == 0
        for name in ("lr_scheduler_type", "warmup_ratio", "label_smoothing_factor"):
            assert getattr(config.training, name) == getattr(usual.training, name)
    for goal in PRESETS:
        settings = preset_settings(goal, "sequence_classification")
        assert all(REGULARISED[section].keys() <= settings[section].keys() for section in REGULARISED)
