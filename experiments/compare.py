"""Several experiments side by side: their results, and the settings in which they differ."""

from collections.abc import Mapping
from typing import Any

from .columns import MEASURED, Column, make_cells
from .models import Experiment

FEWEST = 2
MOST = 6  # columns that fit a screen


def measure_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a row per measure: its value for each experiment, the best one marked."""
    rows = []
    for column in MEASURED:
        values = [column.value(experiment) for experiment in experiments]
        rows.append({"column": column, "cells": make_cells(column, values)})
    return rows


def label_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a row per label: its F1 in each experiment, the best one marked."""
    results = [experiment.metrics.get("eval", {}).get("per_label", {}) for experiment in experiments]
    rows = []
    for label in sorted({label for per_label in results for label in per_label}):
        column = Column(label, label, "", max, digits=4)
        values = [per_label.get(label, {}).get("f1") for per_label in results]
        rows.append({"column": column, "cells": make_cells(column, values)})
    return rows


def setting_rows(experiments: list[Experiment], *, everything: bool = False) -> list[dict[str, Any]]:
    """Return a row per setting, by its dotted name: those that differ, or with `everything` all of them."""
    configs = [flatten_config(experiment.config) for experiment in experiments]
    rows = []
    for name in sorted({name for config in configs for name in config} - {"experiment_name"}):
        values = [config.get(name) for config in configs]
        if everything or any(value != values[0] for value in values):
            rows.append({"title": name, "values": values})
    return rows


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings by dotted name: {"lora": {"r": 8}} becomes {"lora.r": 8}."""
    settings: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            settings |= flatten_config(value, f"{prefix}{name}.")
        else:
            settings[f"{prefix}{name}"] = value
    return settings
