"""Several experiments side by side: their results, and the settings in which they differ."""

from collections.abc import Mapping
from typing import Any

from engine.task_types import LOWER_IS_BETTER

from .columns import MEASURED, Column, make_cells, measure_cells
from .evaluation_sets import evaluation_set
from .margins import margin_in
from .models import Experiment
from .task_types import METRIC_TITLES, TASK_TYPES

FEWEST = 2
MOST = 6  # columns that fit a screen


def measure_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a row per measure: its value for each experiment, the best one marked among those with the same rows.

    Of metrics, only those that all of them have: those of another task type say nothing beside them.
    """
    groups = [evaluation_set(experiment) for experiment in experiments]
    columns = {column.key: column for column in MEASURED if column.key != "score"}
    common = set.intersection(*(set(TASK_TYPES[experiment.task_type].metrics) for experiment in experiments))
    rows: list[dict[str, Any]] = []
    for name in METRIC_TITLES:
        if name in common and name not in columns:
            best = min if name in LOWER_IS_BETTER else max
            column = Column(name, METRIC_TITLES[name], best=best, digits=4)
            values = [experiment.metrics.get("eval", {}).get(name) for experiment in experiments]
            rows.append({"column": column, "cells": make_cells(column, values, groups)})
    for key, column in columns.items():
        if key in common or key not in METRIC_TITLES:
            rows.append({"column": column, "cells": measure_cells(column, experiments)})
    for row in rows:
        for cell, experiment in zip(row["cells"], experiments, strict=True):
            cell["margin"] = margin_in(experiment.metrics, row["column"].key) if cell["value"] is not None else None
    return rows


def label_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a row per label: its F1 in each experiment, the best one marked as in `measure_rows`."""
    groups = [evaluation_set(experiment) for experiment in experiments]
    results = [experiment.metrics.get("eval", {}).get("per_label", {}) for experiment in experiments]
    rows = []
    for label in sorted({label for per_label in results for label in per_label}):
        column = Column(label, label, best=max, digits=4)
        values = [per_label.get(label, {}).get("f1") for per_label in results]
        rows.append({"column": column, "cells": make_cells(column, values, groups)})
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
