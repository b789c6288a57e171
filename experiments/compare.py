"""Several experiments side by side: what they reached, and in which settings they differ."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.errors import Invalid

from .models import Experiment

MOST = 6
HIGHER, LOWER = max, min
MEASURED: tuple[tuple[str, Any, Any], ...] = (
    ("accuracy", gettext_lazy("Accuracy"), HIGHER),
    ("macro_f1", gettext_lazy("Macro F1"), HIGHER),
    ("eval_loss", gettext_lazy("Evaluation loss"), LOWER),
    ("tokens_per_second", gettext_lazy("Tokens per second"), HIGHER),
    ("runtime_s", gettext_lazy("Seconds"), LOWER),
)


def check_names(names: list[str]) -> None:
    if not 2 <= len(names) <= MOST:
        raise Invalid(_("Choose two to six experiments in the list, then compare them."), field="name")


def measures(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """A row per measure: its value for each experiment, and which of them is best."""
    return [
        _row(title, [getattr(experiment, field) for experiment in experiments], best) for field, title, best in MEASURED
    ]


def labels(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """A row per label: its F1 in each experiment."""
    found = [experiment.metrics.get("eval", {}).get("per_label", {}) for experiment in experiments]
    names = sorted({name for each in found for name in each})
    return [_row(name, [each.get(name, {}).get("f1") for each in found], HIGHER) for name in names]


def settings(experiments: list[Experiment], *, everything: bool = False) -> list[dict[str, Any]]:
    """A row per setting, by its dotted name; only those that differ, unless everything is asked for."""
    flat = [_flat(experiment.config) for experiment in experiments]
    names = sorted({name for each in flat for name in each} - {"experiment_name"})
    rows = [{"title": name, "values": [each.get(name) for each in flat]} for name in names]
    return [row for row in rows if everything or any(value != row["values"][0] for value in row["values"])]


def _row(title: Any, values: list[float | None], best: Any) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    top = best(known) if len(set(known)) > 1 else None
    return {"title": title, "cells": [{"value": value, "best": value is not None and value == top} for value in values]}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
        found |= inner
    return found
