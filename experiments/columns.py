"""The columns of the experiment list: what each shows, how it is sorted, and which of its values is best."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from django.utils.translation import gettext_lazy as _

from .models import Experiment
from .task_types import TASK_TYPES

Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Column:
    key: str
    title: Any
    field: str  # the ORM lookup that the list is sorted by
    best: Best | None = None  # None where no value is better than another
    digits: int | None = None  # after the decimal point; None where the values are no numbers
    newest_first: bool = False
    of_one_type: bool = False  # its values mean something else for each task type, so the best is of one type only

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
    Column("score", _("Score"), "score", max, digits=4, of_one_type=True),
    Column("accuracy", _("Accuracy"), "accuracy", max, digits=4),
    Column("macro_f1", _("Macro F1"), "macro_f1", max, digits=4, of_one_type=True),
    Column("loss", _("Evaluation loss"), "eval_loss", min, digits=4, of_one_type=True),
    Column("speed", _("Tokens per second"), "tokens_per_second", max, digits=0),
    Column("duration", _("Training time (s)"), "runtime_s", min, digits=0),
    Column("created", _("Created"), "created_at", newest_first=True),
)
DEFAULT = ("status", "dataset", "task_type", "score", "macro_f1", "duration", "created")
SORTABLE = {column.key: column.field for column in (NAME, *COLUMNS)}
MEASURED = tuple(column for column in COLUMNS if column.best)


def column_heads(shown: list[Column], sort: str) -> list[dict[str, Any]]:
    """Return a head per column: how the list is sorted by it now, and what a click on it sorts by next."""
    sort = sort or "-created"
    heads = []
    for column in (NAME, *shown):
        if sort.removeprefix("-") != column.key:
            # The first click puts the best, the newest or A on top.
            descending = column.best is max or column.newest_first
            heads.append({"column": column, "next": f"-{column.key}" if descending else column.key, "order": ""})
        elif sort.startswith("-"):
            heads.append({"column": column, "next": column.key, "order": "descending"})
        else:
            heads.append({"column": column, "next": f"-{column.key}", "order": "ascending"})
    return heads


def table_lines(
    experiments: Iterable[Experiment], shown: list[Column], scores_so_far: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Return a line per experiment with a cell per column, the best of each column marked.

    The best is that of these lines only: over 100,000 rows it would take longer than the rest of the page.
    """
    experiments = list(experiments)
    cells_by_column = [measure_cells(column, experiments) for column in shown]
    return [
        {
            "experiment": experiment,
            "score_so_far": scores_so_far.get(experiment.pk),
            "cells": [cells[i] for cells in cells_by_column],
        }
        for i, experiment in enumerate(experiments)
    ]


def measure_cells(column: Column, experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a cell per experiment, the best one marked if their values can be compared."""
    cells = make_cells(column, [column.value(each) for each in experiments])
    if column.of_one_type and len({each.task_type for each in experiments}) > 1:
        return [cell | {"best": False} for cell in cells]
    return cells


def make_cells(column: Column, values: list[Any]) -> list[dict[str, Any]]:
    """Return a cell per value. No cell is marked as the best if all values are equal or the column has no best."""
    present = [value for value in values if value is not None]
    best = column.best(present) if column.best and len(set(present)) > 1 else None
    return [{"column": column, "value": value, "best": best is not None and value == best} for value in values]
