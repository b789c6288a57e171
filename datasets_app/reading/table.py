"""What a data file is read into: a table of strings, the lines that could not be read, and how names and values are written."""

import io
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from web.errors import Invalid

ROW = "\x00row"  # no file can have a column of this name: NUL is taken out of names
HEAD_ROWS = 2000
HEAD_BYTES = 64 << 20  # what the first rows of a file take at most; they are all that a preview needs
MOST_COLUMNS = 1000
MOST_UNREADABLE = 100_000  # records that can't be read; beyond it a file must have more that can
MOST_BROKEN = 4 << 20  # characters of broken lines that are kept to be downloaded


@dataclass
class Table:
    """What was read. `frame` has string columns and `row`, the record's number counted from 1 after the header."""

    frame: pl.DataFrame
    kind: str
    encoding: str = "utf-8"
    encodings: tuple[str, ...] = ("utf-8",)  # likely ones, best first
    delimiter: str = ""
    broken_lines: int = 0
    broken_examples: list[dict[str, Any]] = field(default_factory=list)
    broken_text: str = ""  # all of them, up to MOST_BROKEN: their numbers, a tab, and what stands there
    complete: bool = True  # False: only the first rows were asked for, and there are more

    @property
    def columns(self) -> list[str]:
        return [name for name in self.frame.columns if name != ROW]


@dataclass(frozen=True)
class Part:
    """How much of a file is read: its first rows only, some of its columns only."""

    head: bool = False
    only: tuple[str, ...] = ()


@dataclass
class Broken:
    """Counts unreadable lines, keeps the first few as examples, and all of them up to MOST_BROKEN."""

    lines: int = 0
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    hopeless: bool = False  # so many of the records so far are unreadable that no more need be looked at
    examples: list[dict[str, Any]] = field(default_factory=list)
    text: io.StringIO = field(default_factory=io.StringIO)

    def add(self, row: int, text: str) -> None:
        self.lines += text.count("\n") + 1
        self.numbers.append(row)
        self.hopeless = len(self.numbers) > max(MOST_UNREADABLE, row // 2)
        if self.text.tell() < MOST_BROKEN:
            self.text.write(f"{row}\t{clean(text[:MOST_BROKEN]).rstrip()}\n")
        if len(self.examples) < 20:
            self.examples.append({"row": row, "text": clean(text[:200])})


def table_of(frame: pl.DataFrame, kind: str, broken: Broken) -> Table:
    table = Table(frame, kind, broken_lines=broken.lines, broken_examples=broken.examples)
    table.broken_text = broken.text.getvalue()
    return table


def mostly_broken(broken: Broken) -> Invalid:
    message = _(
        "More than half of the first %(count)s records of this file can't be read, such as record %(row)s: “%(text)s”. "
        "Nothing was stored. Check the delimiter, and that each record has the same fields."
    )
    first = broken.examples[0]
    facts = {"count": f"{broken.numbers[-1]:,}", "row": first["row"], "text": first["text"][:80]}
    return Invalid(message % facts, field="file")


def no_rows() -> Invalid:
    return Invalid(_("This file has no rows to train on. Nothing was stored."), field="file")


def clean(text: str) -> str:
    """Without NUL and lone surrogates, which neither databases nor Parquet can hold."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def unique_names(names: Iterable[Any]) -> list[str]:
    """Column names, each once: empty ones get a number, repeated ones too."""
    seen: dict[str, int] = {}
    result = []
    for number, raw in enumerate(names, 1):
        name = clean(str(raw)).strip()[:200] or f"column {number}"
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    if len(set(result)) < len(result) or len(result) > MOST_COLUMNS:
        raise Invalid(_("The header line of this file cannot be read. Give each column one name."), field="file")
    return result


def numbers(rows: int, broken: Sequence[int]) -> pl.Series:
    """The records' numbers, 1-based, leaving out those of broken records."""
    lost = pl.Series(broken, dtype=pl.UInt32).unique()
    found = pl.int_range(1, rows + len(lost) + 1, dtype=pl.UInt32, eager=True).alias(ROW)
    return found.filter(~found.is_in(lost.implode()))[:rows] if len(lost) else found


def cell(value: Any) -> str:
    """A value as the string that people would write: 1.0 is 1, true is true, a date 2026-01-31, lists are JSON."""
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, _WRITTEN):
        return _written(value)
    return clean(json.dumps(value, ensure_ascii=False, default=_written))


_WRITTEN = (bytes, Decimal, date, time, timedelta)  # a datetime is a date


def _written(value: Any) -> str:
    """What JSON has no form for. Many programs store text in Parquet as bytes without saying that it is UTF-8."""
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "replace"))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
