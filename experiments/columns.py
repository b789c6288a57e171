"""The columns of the experiment list: what each shows, how it is sorted, and which of its values is best."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from django.utils.translation import gettext_lazy as _

import lists.columns
from lists.columns import sort_fields

from .evaluation_sets import evaluation_set
from .models import Experiment
from .task_types import TASK_TYPES

Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Column(lists.columns.Column):
    best: Best | None = None  # None where no value is better than another
    of_machine: bool = False  # depends on the machine as much as on the run: no best unless the list is sorted by it

    @property
    def kind(self) -> str:
        """Return how the list shows its values: score, number, status, created or text."""
        if self.key in ("score", "status", "created"):
            return self.key
        return "number" if self.is_number else "text"

    def value(self, experiment: Experiment) -> Any:
        if self.key == "task_type":
            return TASK_TYPES[experiment.task_type].title
        return attrgetter(self.field.replace("__", "."))(experiment)


NAME = Column("name", _("Experiment"), "name")
COLUMNS = (
    Column("status", _("Status"), "task__status"),
    Column("dataset", _("Dataset"), "dataset_name"),
    Column("base_model", _("Base model"), "base_model"),
    Column("owner", _("Owner"), "owner__username"),
    Column("task_type", _("Task type"), "task_type"),
    Column("score", _("Score"), "score", best=max, digits=4, descending_first=True),
    Column("accuracy", _("Accuracy"), "accuracy", best=max, digits=4, descending_first=True),
    Column("macro_f1", _("Macro F1"), "macro_f1", best=max, digits=4, descending_first=True),
    Column("loss", _("Evaluation loss"), "eval_loss", best=min, digits=4),
    Column(
        "speed", _("Tokens per second"), "tokens_per_second", best=max, digits=0, descending_first=True, of_machine=True
    ),
    Column("duration", _("Training time (s)"), "runtime_s", best=min, digits=0, of_machine=True),
    Column("created", _("Created"), "created_at", descending_first=True),
)
DEFAULT = ("status", "dataset", "task_type", "score", "macro_f1", "duration", "created")
SORTABLE = sort_fields((NAME, *COLUMNS))
NEWEST_FIRST = "-created"
MEASURED = tuple(column for column in COLUMNS if column.best)


def table_lines(
    experiments: Iterable[Experiment],
    shown: list[Column],
    sort: str = "",
    scores_so_far: Mapping[int, float] | None = None,
) -> list[dict[str, Any]]:
    """Return a line per experiment with a cell per column, the best of each column marked.

    The best is that of these lines only: over 100,000 rows it would take longer than the rest of the page.
    """
    experiments = list(experiments)
    cells_by_column = [measure_cells(column, experiments, sort) for column in shown]
    for cells in cells_by_column:
        for cell, experiment in zip(cells, experiments, strict=True):
            if cell["column"].field == "score" or cell["column"].field == experiment.score_name:
                cell["margin"] = experiment.score_margin
    return [
        {
            "experiment": experiment,
            "score_so_far": (scores_so_far or {}).get(experiment.pk),
            "cells": [cells[i] for cells in cells_by_column],
        }
        for i, experiment in enumerate(experiments)
    ]


def measure_cells(column: Column, experiments: list[Experiment], sort: str = "") -> list[dict[str, Any]]:
    """Return a cell per experiment, the best ones marked among those that were evaluated on the same rows."""
    values = [column.value(each) for each in experiments]
    if not column.best:
        return make_cells(column, values, [None] * len(values))
    if not column.of_machine:
        return make_cells(column, values, [evaluation_set(each) for each in experiments])
    cells = make_cells(column, values, [None] * len(values))
    is_wanted = sort.removeprefix("-") == column.key
    return cells if is_wanted else [cell | {"best": False} for cell in cells]


def make_cells(column: Column, values: list[Any], groups: Sequence[Hashable]) -> list[dict[str, Any]]:
    """Return a cell per value, marked if it is the best of its group.

    groups: one for each value; only values of one group can be compared. A group of equal values has no best.
    """
    values_by_group: dict[Hashable, set[Any]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            values_by_group.setdefault(group, set()).add(value)
    best = {
        group: column.best(present) for group, present in values_by_group.items() if column.best and len(present) > 1
    }
    kind = column.kind
    title = str(column.title)  # translated once, and not for each cell of a long list
    return [
        {
            "column": column,
            "kind": kind,
            "title": title,
            "value": value,
            "margin": None,
            "best": value is not None and value == best.get(group),
        }
        for value, group in zip(values, groups, strict=True)
    ]
