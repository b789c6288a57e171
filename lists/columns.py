"""The columns of a list, and how a click on their heads sorts it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    key: str
    title: Any
    field: str = ""  # the ORM lookup that the list is sorted by; empty: it cannot be sorted by this column
    digits: int | None = None  # after the decimal point; None where the values are no numbers
    descending_first: bool = False  # the first click puts the best, the newest or the most on top

    @property
    def is_number(self) -> bool:
        return self.digits is not None


def sort_fields(columns: Iterable[Column]) -> dict[str, str]:
    """Return the ORM lookups of the columns that a list can be sorted by."""
    return {column.key: column.field for column in columns if column.field}


def column_heads(columns: Iterable[Column], sort: str) -> list[dict[str, Any]]:
    """Return a head per column: how the list is sorted by it now, and what a click on it sorts by next."""
    heads = []
    for column in columns:
        if sort.removeprefix("-") != column.key:
            heads.append({"column": column, "next": f"{'-' * column.descending_first}{column.key}", "order": ""})
        elif sort.startswith("-"):
            heads.append({"column": column, "next": column.key, "order": "descending"})
        else:
            heads.append({"column": column, "next": f"-{column.key}", "order": "ascending"})
    return heads
