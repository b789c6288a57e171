"""The columns of the list: what each shows, how it is sorted, and which of its values is best."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from django.utils.translation import gettext_lazy as _

from .models import Experiment

Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Column:
    key: str
    title: Any
    field: str  # as the database sorts by it
    best: Best | None = None  # None where no value is better than another
    digits: int = 4
    newest_first: bool = False

    @property
    def is_number(self) -> bool:
        return self.best is not None

    @property
    def first(self) -> str:
        """What a first click on its head sorts by: the best, the newest or A on top."""
        return f"-{self.key}" if self.best is max or self.newest_first else self.key

    def value(self, experiment: Experiment) -> Any:
        return attrgetter(self.field.replace("__", "."))(experiment)


NAME = Column("name", _("Experiment"), "name")
COLUMNS = (
    Column("status", _("Status"), "task__status"),
    Column("dataset", _("Dataset"), "dataset_name"),
    Column("base_model", _("Base model"), "base_model"),
    Column("owner", _("Owner"), "owner__username"),
    Column("accuracy", _("Accuracy"), "accuracy", max),
    Column("macro_f1", _("Macro F1"), "macro_f1", max),
    Column("loss", _("Evaluation loss"), "eval_loss", min),
    Column("speed", _("Tokens per second"), "tokens_per_second", max, digits=0),
    Column("duration", _("Seconds"), "runtime_s", min, digits=0),
    Column("created", _("Created"), "created_at", newest_first=True),
)
USUAL = ("status", "dataset", "accuracy", "macro_f1", "duration", "created")
SORTABLE = {column.key: column.field for column in (NAME, *COLUMNS)}
SHAPES = {
    "PENDING": "queued",
    "STARTED": "running",
    "SUCCESS": "success",
    "FAILURE": "failed",
    "CANCELLED": "cancelled",
}
MEASURED = tuple(column for column in COLUMNS if column.best)


def chosen(keys: list[str]) -> list[Column]:
    """The columns of these keys in their usual order; the usual ones when none is asked for."""
    return [column for column in COLUMNS if column.key in (keys or USUAL)]


def heads(shown: list[Column], sort: str) -> list[dict[str, Any]]:
    """A head per column: how it is sorted now, and what a click sorts by."""
    return [_head(column, sort or "-created") for column in (NAME, *shown)]


def _head(column: Column, sort: str) -> dict[str, Any]:
    if sort.removeprefix("-") != column.key:
        return {"column": column, "next": column.first, "order": ""}
    if sort.startswith("-"):
        return {"column": column, "next": column.key, "order": "descending"}
    return {"column": column, "next": f"-{column.key}", "order": "ascending"}


def lines(experiments: Iterable[Experiment], shown: list[Column]) -> list[dict[str, Any]]:
    """A line per experiment with a cell per column, the best of each column marked.

    Best is meant among these lines: over 100,000 rows it would take longer than all the rest of the page.
    """
    rows = [(each, [column.value(each) for column in shown]) for each in experiments]
    tops = [top(column, [values[i] for _each, values in rows]) for i, column in enumerate(shown)]
    return [
        {"experiment": each, "shape": SHAPES[each.task.status], "cells": list(map(cell, shown, values, tops))}
        for each, values in rows
    ]


def top(column: Column, values: list[Any]) -> float | None:
    """The best value; None where no value is better than another."""
    known = [value for value in values if value is not None]
    return column.best(known) if column.best and len(set(known)) > 1 else None


def cell(column: Column, value: Any, best: float | None) -> dict[str, Any]:
    return {"column": column, "value": value, "best": best is not None and value == best}
