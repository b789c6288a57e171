"""The table of strings that a data file is read into, and the conversion of names and values to strings."""

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

from datasets_app.reading.characters import clean
from web.errors import InvalidError

ROW = "\x00row"  # no file can have a column of this name: NUL is taken out of names
HEAD_ROWS = 2000
HEAD_BYTES = 64 << 20  # that the first rows of a file take at most; a preview needs no more
MOST_COLUMNS = 1000
MOST_UNREADABLE = 100_000  # records that cannot be read; a file with more of them must have even more that can
MOST_BROKEN = 4 << 20  # characters of broken lines that are kept for download

# Characters that show nothing: spaces of all kinds, controls, formats (zero-width, BOM), variation selectors, fillers.
INVISIBLE = (
    r"\s\p{Z}\p{Cc}\p{Cf}\x{34f}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180f}\x{2800}\x{3164}\x{fe00}-\x{fe0f}"
    r"\x{ffa0}\x{e0100}-\x{e01ef}"
)


@dataclass
class Table:
    """The rows that were read. `frame` has string columns, and `ROW`: the number of the record, from 1 after the header."""

    frame: pl.DataFrame
    kind: str
    encoding: str = "utf-8"
    encodings: tuple[str, ...] = ("utf-8",)  # likely ones, best first
    delimiter: str = ""
    broken_lines: int = 0
    broken_examples: list[dict[str, Any]] = field(default_factory=list)
    broken_text: str = ""  # the broken lines, up to MOST_BROKEN characters: number, tab, content
    complete: bool = True  # False: only the first rows were asked for, and there are more
    quote: str = ""
    header: bool = True
    skipped_lines: int = 0  # before the header
    sheet: str = ""
    sheets: list[str] = field(default_factory=list)  # of a workbook, those with cells
    lines: dict[str, int] = field(default_factory=dict)  # see `delimited.LineCounts`; empty for other formats
    lists: list[str] = field(default_factory=list)  # columns whose cells are lists of plain values
    nested: list[str] = field(default_factory=list)  # columns whose cells are objects, or lists of objects
    text: str = ""  # the columns with text, label and split, where the format says so
    label: str = ""
    split: str = ""
    labels_kind: str = ""  # what the labels are, where the format says so
    left_out: dict[str, int] = field(default_factory=dict)  # {reason: records that became no row}
    left_out_examples: list[dict[str, Any]] = field(default_factory=list)  # [{row, text, label}]
    broken_tags: list[int] = field(default_factory=list)  # rows whose tags are no sequence of spans
    notes: list[dict[str, Any]] = field(default_factory=list)  # [{code, …}]: see `descriptions.NOTES`

    @property
    def columns(self) -> list[str]:
        return [name for name in self.frame.columns if name != ROW]


@dataclass(frozen=True)
class ReadScope:
    """How much of a file to read: all of it, or only its first rows, or only some columns."""

    head: bool = False
    only: tuple[str, ...] = ()


@dataclass
class BrokenRecords:
    """Counts the lines that cannot be read, with the first few as examples and all up to MOST_BROKEN for download."""

    lines: int = 0
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    hopeless: bool = False  # most of the records so far are unreadable, so the rest need not be read
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


def table_of(frame: pl.DataFrame, kind: str, broken: BrokenRecords) -> Table:
    """Return a table with its broken lines."""
    return Table(
        frame,
        kind,
        broken_lines=broken.lines,
        broken_examples=broken.examples,
        broken_text=broken.text.getvalue(),
    )


def mostly_broken(broken: BrokenRecords) -> InvalidError:
    """Return the error for a file whose records are mostly unreadable."""
    message = _(
        "More than half of the first %(count)s records of this file can't be read, such as record %(row)s: “%(text)s”. "
        "Nothing was stored. Check the delimiter, and that each record has the same fields."
    )
    first = broken.examples[0]
    facts = {"count": f"{broken.numbers[-1]:,}", "row": first["row"], "text": first["text"][:80]}
    return InvalidError(message % facts, field="delimiter")


def no_rows() -> InvalidError:
    """Return the error for a file without rows."""
    return InvalidError(_("This file has no rows to train on. Nothing was stored."), field="file")


def find_column(table: Table, name: str, field_name: str) -> str:
    """Return the column that a person means: by its name, whatever spaces are in it, or by its number without a header."""
    wanted = " ".join(name.split())
    if name in table.columns or wanted in table.columns:
        return name if name in table.columns else wanted
    if not table.header and f"column {wanted}" in table.columns:
        return f"column {wanted}"
    raise column_error(table, field_name, _("There is no column “%(column)s”.") % {"column": name[:80]})


def column_error(table: Table, field_name: str, problem: str) -> InvalidError:
    """Return the error for a choice of columns that does not fit; it names the columns that there are."""
    names = ", ".join(f"“{c}”" for c in table.columns[:30])
    message = _("%(what)s The columns are: %(names)s. Name the right one; nothing was stored.")
    return InvalidError(message % {"what": problem, "names": names}, field=field_name, columns=table.columns[:30])


def unique_names(names: Iterable[Any]) -> list[str]:
    """Return column names that are unique and not empty, by numbering them."""
    seen: dict[str, int] = {}
    result = []
    for number, raw in enumerate(names, 1):
        name = " ".join(clean(str(raw)).split())[:200] or f"column {number}"
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    if len(set(result)) < len(result) or len(result) > MOST_COLUMNS:
        raise InvalidError(_("The header line of this file cannot be read. Give each column one name."), field="file")
    return result


def numbers(rows: int, broken: Sequence[int]) -> pl.Series:
    """Return the numbers of the records that were read, from 1, skipping those of broken records."""
    skipped = pl.Series(broken, dtype=pl.UInt32).unique()
    every = pl.int_range(1, rows + len(skipped) + 1, dtype=pl.UInt32, eager=True).alias(ROW)
    if not len(skipped):
        return every
    return every.filter(~every.is_in(skipped.implode()))[:rows]


def cell(value: Any) -> str:
    """Return a value as people write it: 1.0 as 1, true as true, a date as 2026-01-31, a list as JSON."""
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, _NOT_IN_JSON):
        return _to_text(value)
    return clean(json.dumps(value, ensure_ascii=False, default=_to_text))


_NOT_IN_JSON = (bytes, Decimal, date, time, timedelta)  # a datetime is a date


def _to_text(value: Any) -> str:
    """Return a value of a type that JSON has not. Many programs store UTF-8 text in Parquet as plain bytes."""
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "replace"))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
