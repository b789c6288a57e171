"""What the cells of a label column mean for each task type: one label, several labels, a score, or labelled spans.

Several labels are a JSON list of names, spans a JSON list of {"start", "end", "label"} with offsets in code points, as the
platform stores them. Files may also hold them as lists of their own format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import polars as pl

from engine.data.labelled_rows import sort_labels
from engine.task_types import TaskType

SCORE_BINS = 10  # of equally many rows, from each of which the same share is held out


class LabelColumn(Protocol):
    """The meaning of a column of strings that are neither null nor blank."""

    skip_reason: str  # of rows whose cell means nothing; a key of SKIP_REASONS
    fewest_labels: int  # that there is something to learn from

    def usable(self, cells: pl.Series) -> pl.Series:
        """Return whether each cell means something: (rows,) Boolean."""
        ...

    def names(self, cells: pl.Series) -> list[str]:
        """Return the names of all labels in their order; none for scores."""
        ...

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        """Return the labels as engine.data.labelled_rows.Split holds them."""
        ...

    def strata(self, cells: pl.Series) -> pl.Series:
        """Return what splits are stratified by, (rows,) String: rows that are alike have the same."""
        ...

    def counts(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """Return the number of rows or entities of each label: (labels,) int64; labels as `to_array` returns them."""
        ...


class Classes:
    """One label per text."""

    skip_reason = "no_label"
    fewest_labels = 2

    def usable(self, cells: pl.Series) -> pl.Series:
        return pl.repeat(True, len(cells), dtype=pl.Boolean, eager=True)

    def names(self, cells: pl.Series) -> list[str]:
        return sort_labels(cells.unique().to_list())

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        index_of_name = {name: index for index, name in enumerate(names)}
        return np.array([index_of_name[cell] for cell in cells], dtype=np.int64)

    def strata(self, cells: pl.Series) -> pl.Series:
        return cells

    def counts(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.bincount(labels, minlength=len(names))


class Scores:
    """A number per text."""

    skip_reason = "not_a_number"
    fewest_labels = 0

    def usable(self, cells: pl.Series) -> pl.Series:
        return self._numbers(cells).is_finite().fill_null(False)

    def names(self, cells: pl.Series) -> list[str]:
        return []

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        return self._numbers(cells).to_numpy()

    def strata(self, cells: pl.Series) -> pl.Series:
        ranks = self._numbers(cells).rank("ordinal")
        return ((ranks - 1) * SCORE_BINS // max(1, len(cells))).cast(pl.String)

    def counts(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.zeros(0, dtype=np.int64)

    def _numbers(self, cells: pl.Series) -> pl.Series:
        return cells.str.strip_chars().cast(pl.Float64, strict=False)


class LabelLists:
    """Any number of labels per text."""

    skip_reason = "not_a_list"
    fewest_labels = 2

    def usable(self, cells: pl.Series) -> pl.Series:
        return _for_each_value(cells, lambda cell: self._labels_of(cell) is not None, pl.Boolean)

    def names(self, cells: pl.Series) -> list[str]:
        return sort_labels(list({name for cell in cells.unique() for name in self._labels_of(cell) or ()}))

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        index_of_name = {name: index for index, name in enumerate(names)}
        labels = np.zeros((len(cells), len(names)), dtype=bool)
        for row, cell in enumerate(cells):
            labels[row, [index_of_name[name] for name in self._labels_of(cell) or ()]] = True
        return labels

    def strata(self, cells: pl.Series) -> pl.Series:
        return _rarest_labels(cells, self._labels_of)

    def counts(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return labels.sum(axis=0)

    def _labels_of(self, cell: str) -> list[str] | None:
        """Return the names in a JSON list, without repetitions; None if the cell is no list of names or numbers."""
        content = _parse_json(cell)
        if not isinstance(content, list) or not all(isinstance(name, str | int | float) for name in content):
            return None
        return list(dict.fromkeys(str(name) for name in content))


class Spans(LabelLists):
    """Labelled spans of each text: its labels are those of a list, and each one has a place."""

    skip_reason = "no_spans"
    fewest_labels = 1

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        index_of_name = {name: index for index, name in enumerate(names)}
        entities = [
            (row, start, end, index_of_name[label])
            for row, cell in enumerate(cells)
            for start, end, label in parse_spans(cell) or ()
        ]
        return np.array(entities, dtype=np.int64).reshape(-1, 4)

    def counts(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.bincount(labels[:, 3], minlength=len(names))

    def _labels_of(self, cell: str) -> list[str] | None:
        spans = parse_spans(cell)
        return None if spans is None else [label for _start, _end, label in spans]


class Conversations(Classes):
    """No labels at all: conversations and preferences are held out as if all had the same."""

    fewest_labels = 0

    def names(self, cells: pl.Series) -> list[str]:
        return []

    def to_array(self, cells: pl.Series, names: list[str]) -> np.ndarray:
        return np.zeros(0, dtype=np.int64)


LABEL_COLUMNS: dict[TaskType, LabelColumn] = {
    "sequence_classification": Classes(),
    "multi_label_classification": LabelLists(),
    "regression": Scores(),
    "token_classification": Spans(),
    "causal_lm": Conversations(),
    "preference": Conversations(),
}


def parse_spans(cell: str) -> list[tuple[int, int, str]] | None:
    """Return (start, end, label) of the spans in a JSON list; None if the cell is no list of spans."""
    content = _parse_json(cell)
    if not isinstance(content, list):
        return None
    try:
        spans = [(int(span["start"]), int(span["end"]), str(span["label"])) for span in content]
    except (TypeError, KeyError, ValueError):
        return None
    return spans if all(0 <= start < end for start, end, _label in spans) else None


def as_json(column: pl.Series) -> pl.Series:
    """Return a column of lists or structs as JSON text; null stays null."""
    values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in column.to_list()]
    return pl.Series(column.name, values, dtype=pl.String)


def _parse_json(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None


def _for_each_value(cells: pl.Series, function: Callable[[str], object], dtype: type[pl.DataType]) -> pl.Series:
    """Return the function's results row by row; it is called once for each different cell."""
    values = cells.unique().to_list()
    return cells.replace_strict(values, [function(value) for value in values], return_dtype=dtype)


def _rarest_labels(cells: pl.Series, labels_of: Callable[[str], list[str] | None]) -> pl.Series:
    """Return the rarest label of each row, so that rare labels are held out too; empty without any, or if it is alone in that.

    labels_of: returns the names in a cell.
    """
    counts: Counter[str] = Counter()
    for cell, rows in cells.value_counts().iter_rows():
        for name in {*(labels_of(cell) or ())}:
            counts[name] += rows

    def rarest(cell: str) -> str:
        return min(labels_of(cell) or (), key=lambda name: (counts[name], name), default="")

    strata = pl.DataFrame({"stratum": _for_each_value(cells, rarest, pl.String)})
    # A stratum of one row would never be held out.
    is_alone = pl.len().over("stratum") == 1
    return strata.select(pl.when(is_alone).then(pl.lit("")).otherwise("stratum")).to_series()
