"""What a data file is read into: a table of strings, the lines that could not be read, and how names and values are written."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from accounts.errors import Invalid

ROW = "\x00row"  # no file can have a column of this name: NUL is taken out of names
HEAD_ROWS = 2000
MOST_COLUMNS = 1000
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
    numbers: list[int] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    text: io.StringIO = field(default_factory=io.StringIO)

    def add(self, row: int, text: str) -> None:
        self.lines += text.count("\n") + 1
        self.numbers.append(row)
        if self.text.tell() < MOST_BROKEN:
            self.text.write(f"{row}\t{clean(text[:MOST_BROKEN]).rstrip()}\n")
        if len(self.examples) < 20:
            self.examples.append({"row": row, "text": clean(text[:200])})


def table_of(frame: pl.DataFrame, kind: str, broken: Broken) -> Table:
    table = Table(frame, kind, broken_lines=broken.lines, broken_examples=broken.examples)
    table.broken_text = broken.text.getvalue()
    return table


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


def numbers(rows: int, broken: list[int]) -> pl.Series:
    """The records' numbers, 1-based, leaving out those of broken records."""
    lost = set(broken)
    found = pl.int_range(1, rows + len(lost) + 1, dtype=pl.UInt32, eager=True).alias(ROW)
    return found.filter(~found.is_in(list(lost)))[:rows] if lost else found


def cell(value: Any) -> str:
    """A value as the string that people would write: 1.0 is 1, true is true, lists are JSON."""
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return clean(json.dumps(value, ensure_ascii=False, default=str))
