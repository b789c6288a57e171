"""Several experiments side by side: what they reached, and in which settings they differ."""

from typing import Any

from .columns import MEASURED, Column, cell, top
from .models import Experiment

FEWEST, MOST = 2, 6


def measures(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """A row per measure: its value for each experiment, and which of them is best."""
    return [_row(column, [column.value(experiment) for experiment in experiments]) for column in MEASURED]


def labels(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """A row per label: its F1 in each experiment."""
    found = [experiment.metrics.get("eval", {}).get("per_label", {}) for experiment in experiments]
    names = sorted({name for each in found for name in each})
    return [_row(Column(name, name, "", max), [each.get(name, {}).get("f1") for each in found]) for name in names]


def settings(experiments: list[Experiment], *, everything: bool = False) -> list[dict[str, Any]]:
    """A row per setting, by its dotted name; only those that differ, unless everything is asked for."""
    flat = [_flat(experiment.config) for experiment in experiments]
    names = sorted({name for each in flat for name in each} - {"experiment_name"})
    rows = [{"title": name, "values": [each.get(name) for each in flat]} for name in names]
    return [row for row in rows if everything or any(value != row["values"][0] for value in row["values"])]


def _row(column: Column, values: list[float | None]) -> dict[str, Any]:
    best = top(column, values)
    return {"column": column, "cells": [cell(column, value, best) for value in values]}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
        found |= inner
    return found
