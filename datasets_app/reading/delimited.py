"""Read CSV, TSV and their relatives into a table of strings.

Arrow reads a file whose every record is regular, which `line_scan` checks beforehand, or Python's csv module where it cannot
tell; `records.RecordReader` reads the others, slower and with more care. Lines that fit neither are counted and kept with their number.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.archives import head_of, refuse_cells
from datasets_app.reading.characters import clean
from datasets_app.reading.dialects import Layout, count_named, guess_layout
from datasets_app.reading.line_scan import ScannedLines, scan_lines
from datasets_app.reading.options import FileOptions
from datasets_app.reading.records import Record, RecordReader
from datasets_app.reading.table import (
    HEAD_ROWS,
    ROW,
    BrokenRecords,
    ReadScope,
    Table,
    mostly_broken,
    no_rows,
    numbers,
    table_of,
    unique_names,
)
from web.errors import InvalidError

LONGEST_LINE = 8 << 20  # characters; a longer record is refused, so that one endless line cannot exhaust the memory
_SAMPLE_BYTES = 1 << 18
_BLOCK_ROWS = 50_000
csv.field_size_limit(LONGEST_LINE)


def read_delimited(text: Path, kind: str, options: FileOptions, scope: ReadScope, limit: int) -> Table:
    """Read a CSV or TSV file in UTF-8; what `options` leaves open is guessed."""
    sample = first_lines(text)
    layout = guess_layout(sample, options, "\t" if kind == "tsv" else ",")
    names = _column_names(layout)
    lines = LineCounts(before_header=layout.skipped_lines)
    marks = 0
    beyond = 0
    frame = None
    if not scope.head and is_regular(text, layout, lines):
        frame = read_with_arrow(text, layout, names, scope, limit)
        broken = BrokenRecords()
        complete = True
        joined = 0
    if frame is None:
        reader = CarefulReader(layout, names, scope, limit)
        frame, complete = reader.read(text)
        broken = reader.broken
        lines = reader.lines
        marks = reader.records.literal_marks
        joined = reader.joined
        beyond = reader.ran_on
    if frame.is_empty() and not broken.lines:
        raise no_rows()
    frame, ran_on = join_overflow(frame, layout, scope)
    frame = drop_padding(frame)
    table = table_of(frame, kind, broken)
    table.delimiter = layout.dialect.delimiter
    table.quote = layout.dialect.quote
    table.header = bool(layout.names)
    table.complete = complete
    table.lines = vars(lines) if complete else {}
    table.skipped_lines = layout.skipped_lines
    table.notes = [*_notes(layout, lines, marks, joined, ran_on + beyond)]
    return table


def line_too_long() -> InvalidError:
    """Return the error for a record of more than LONGEST_LINE characters."""
    message = _(
        "A line of this file is longer than %(limit)s MiB, or a quotation mark is never closed. Nothing was stored."
    )
    return InvalidError(message % {"limit": LONGEST_LINE >> 20}, field="quote")


@dataclass
class LineCounts:
    """Where the lines of a file went: each is counted once."""

    before_header: int = 0
    header: int = 0
    blank: int = 0
    broken: int = 0
    records: int = 0


def first_lines(text: Path) -> list[str]:
    """Return the first whole lines of a file."""
    sample = head_of(text, _SAMPLE_BYTES)
    is_cut = text.stat().st_size > len(sample)
    if is_cut and b"\n" not in sample and b"\r" not in sample:
        raise line_too_long()
    lines = list(io.StringIO(sample.decode("utf-8", "replace").removeprefix("\ufeff"), newline=""))
    return lines[:-1] if is_cut and len(lines) > 1 else lines


def _column_names(layout: Layout) -> list[str]:
    """Return the names of the header; without one, columns are called by their number."""
    names = layout.names or [f"column {number}" for number in range(1, layout.width + 1)]
    return unique_names(names)


def _notes(layout: Layout, lines: LineCounts, marks: int, joined: int, ran_on: int) -> Iterator[dict[str, object]]:
    """Yield what a person should know of how the lines were read."""
    if not layout.names:
        yield {"code": "no_header"}
    if lines.before_header:
        yield {"code": "skipped_lines", "count": lines.before_header}
    if layout.has_row_names:
        yield {"code": "row_names"}
    if layout.nameless_last:
        yield {"code": "header_too_short"}
    if layout.missing_name:
        yield {"code": "header_too_long", "column": clean(layout.missing_name)[:80]}
    if layout.dialect.once:
        yield {"code": f"{layout.dialect.once}_delimiter", "delimiter": layout.dialect.delimiter}
    if marks:
        yield {"code": "literal_marks", "count": marks}
    if joined:
        yield {"code": "cells_joined", "count": joined}
    if ran_on:
        yield {"code": "overflow_joined", "count": ran_on}


# --- regular files ---------------------------------------------------------------------------------------------------


def is_regular(text: Path, layout: Layout, lines: LineCounts) -> bool:
    """Return whether each record is one of RFC 4180, so that Arrow can read it; count the lines on the way.

    Arrow itself checks that each record has as many cells as the others.
    """
    dialect = layout.dialect
    if (
        dialect.escape
        or dialect.once
        or dialect.is_padded
        or len(dialect.delimiter) > 1
        or not dialect.delimiter.isascii()
        or (dialect.quote or '"') != '"'
    ):
        return False
    scanned = scan_lines(text, dialect.delimiter, skipped_lines=layout.skipped_lines, has_marks=bool(dialect.quote))
    scanned = scanned or parse_lines(text, layout)
    if scanned is None or (scanned.inside and joins_records(text, layout)):
        return False
    lines.header = scanned.header if layout.names else 0
    lines.blank = scanned.blank
    lines.records = scanned.total - lines.header - scanned.blank
    return True


def parse_lines(text: Path, layout: Layout) -> ScannedLines | None:
    """Count the lines with Python's csv module; None if it finds a record that is not regular."""
    with open(text, encoding="utf-8-sig", errors="replace", newline="") as file:
        for _ in range(layout.skipped_lines):
            file.readline()
        reader = csv.reader(file, delimiter=layout.dialect.delimiter, quoting=_quoting(layout), strict=True)
        try:
            first = next(reader)
            header_lines = reader.line_num
            widths = Counter(map(len, reader))
        except (csv.Error, StopIteration):
            return None
    blank = widths.pop(0, 0)
    if len(first) != layout.width or widths.keys() - {layout.width}:
        return None
    total = reader.line_num
    return ScannedLines(header_lines, blank, total - blank - sum(widths.values()) - 1, total)


def _quoting(layout: Layout) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if layout.dialect.quote else csv.QUOTE_NONE


def joins_records(text: Path, layout: Layout) -> bool:
    """Return whether a quotation mark joins lines each of which would be a record alone."""
    records = RecordReader(layout.dialect, layout.width, layout.classes)
    lines = _lines_of(text, layout.skipped_lines)
    reader = csv.reader(lines, delimiter=layout.dialect.delimiter, quoting=_quoting(layout))
    last_line = 0
    for cells in reader:
        if reader.line_num > last_line + 1:
            parts = re.split(r"\r\n|\r|\n", layout.dialect.delimiter.join(cells))
            if all(records.is_record(part) for part in parts):
                return True
        last_line = reader.line_num
    return False


def _lines_of(text: Path, skipped: int) -> Iterator[str]:
    """Yield the lines with their ends, which are only CR, LF or both, from behind the skipped ones."""
    with open(text, encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), "")):
            if len(line) > LONGEST_LINE:
                raise line_too_long()
            if number >= skipped:
                yield line


def read_with_arrow(text: Path, layout: Layout, names: list[str], scope: ReadScope, limit: int) -> pl.DataFrame | None:
    """Return the rows of a regular file; None where Arrow sees it otherwise."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    read_options = arrow.ReadOptions(
        use_threads=False, block_size=LONGEST_LINE, column_names=names, skip_rows=layout.skipped_lines
    )
    parse_options = arrow.ParseOptions(
        delimiter=layout.dialect.delimiter,
        quote_char='"' if layout.dialect.quote else False,
        newlines_in_values=bool(layout.dialect.quote),
    )
    convert_options = arrow.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=False,
        include_columns=_needed_names(names, layout, scope),
    )
    blocks = []
    cells = 0
    try:
        # Reading in blocks keeps the file and its rows from being in memory at once.
        for batch in arrow.open_csv(text, read_options, parse_options, convert_options):
            cells += batch.num_rows * batch.num_columns
            refuse_cells(cells, limit)
            blocks.append(pl.DataFrame(batch))
    except pa.ArrowInvalid:
        return None
    if not blocks:
        raise no_rows()
    frame = pl.concat(blocks)
    pa.default_memory_pool().release_unused()
    frame = frame[1:] if layout.names else frame  # the header is the first record
    return frame.with_columns(numbers(frame.height, []))


def _needed_names(names: list[str], layout: Layout, scope: ReadScope) -> list[str]:
    """Return the columns to read: those asked for, and those without a name that may hold the end of a text."""
    if not scope.only:
        return names
    overflow = names[_first_nameless(layout) :]
    return [name for name in names if name in scope.only or name in overflow]


# --- all others ------------------------------------------------------------------------------------------------------


class CarefulReader:
    """Reads a file record by record; counts and keeps what cannot be read."""

    def __init__(self, layout: Layout, names: list[str], scope: ReadScope, limit: int) -> None:
        self.layout = layout
        self.names = names
        self.chosen = _needed_names(names, layout, scope)
        self.most_rows = HEAD_ROWS if scope.head else None
        self.limit = limit
        self.records = RecordReader(layout.dialect, layout.width, layout.classes)
        self.broken = BrokenRecords()
        self.lines = LineCounts(before_header=layout.skipped_lines)
        self.ran_on = 0  # texts that ran on behind the last column
        self.joined = 0  # records whose cells were joined again

    def read(self, text: Path) -> tuple[pl.DataFrame, bool]:
        """Return the rows, and whether they are all rows of the file."""
        records = self.records.read(_lines_of(text, self.layout.skipped_lines))
        if self.layout.names:
            header = next(records)
            self.lines.header = header.lines
        rows = self._rows(enumerate(records, 1))
        blocks = []
        while block := list(islice(rows, _BLOCK_ROWS if self.most_rows is None else self.most_rows)):
            blocks.append(self._frame_of(block))
            refuse_cells(sum(b.height for b in blocks) * len(self.chosen), self.limit)
            if self.most_rows is not None:
                break
        frame = pl.concat(blocks) if blocks else self._frame_of([])
        complete = self.most_rows is None or frame.height < self.most_rows or next(rows, None) is None
        self.lines.blank = self.records.blank_lines
        return frame, complete

    def _rows(self, records: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, list[str]]]:
        """Yield number and cells of the records that can be read."""
        width = self.layout.width
        for number, record in records:
            cells = record.cells if len(record.cells) == width else self._rejoin(record.cells)
            if cells is None:
                self.broken.add(number, record.text)
                self.lines.broken += record.lines
                if self.broken.hopeless:
                    raise mostly_broken(self.broken)
                continue
            self.lines.records += record.lines
            yield number, cells

    def _rejoin(self, cells: list[str]) -> list[str] | None:
        """Return the cells of a record whose text holds the delimiter; None unless its classes prove it."""
        named = count_named(self.layout.names) if self.layout.names else self.layout.width
        if 1 < named < self.layout.width and len(cells) >= named:
            # the last text runs on, or has fewer empty cells behind it
            delimiter = self.layout.dialect.delimiter
            last = delimiter.join(cells[named - 1 :]).rstrip(delimiter)
            self.ran_on += len(cells) > self.layout.width
            return [*cells[: named - 1], last, *[""] * (self.layout.width - named)]
        extra = len(cells) - self.layout.width
        classes = self.layout.classes
        texts = [i for i in range(self.layout.width) if i not in classes]
        if extra < 1 or not classes or len(texts) != 1:
            return None
        at = texts[0]
        text = self.layout.dialect.delimiter.join(cells[at : at + extra + 1])
        fitted = [*cells[:at], text, *cells[at + extra + 1 :]]
        if any(fitted[i] not in values for i, values in classes.items()):
            return None
        self.joined += 1
        return fitted

    def _frame_of(self, rows: list[tuple[int, list[str]]]) -> pl.DataFrame:
        series = []
        for i, name in enumerate(self.names):
            if name in self.chosen:
                series.append(pl.Series(name, [clean(cells[i]) for _, cells in rows], pl.String))
        return pl.DataFrame([*series, pl.Series(ROW, [number for number, _ in rows], pl.UInt32)])


def drop_padding(frame: pl.DataFrame) -> pl.DataFrame:
    """Take away the space with which every cell of a column begins: it belongs to the delimiter, as in “bad, Cold fish”."""
    is_padded = pl.col(pl.String).str.starts_with(" ") | (pl.col(pl.String) == "")
    flags = frame.select(is_padded.all() & (pl.col(pl.String) != "").any()).row(0, named=True) if frame.height else {}
    padded = [name for name, flag in flags.items() if flag]
    return frame.with_columns(pl.col(padded).str.strip_chars_start(" ")) if padded else frame


def _first_nameless(layout: Layout) -> int:
    """Return the index of the first of the columns at the end that have no name."""
    return count_named(layout.names) if layout.names else layout.width


def join_overflow(frame: pl.DataFrame, layout: Layout, scope: ReadScope) -> tuple[pl.DataFrame, int]:
    """Join texts that run on into the columns without a name, where these are mostly empty; return how many did.

    Exports without quotation marks cut a text at each delimiter in it.
    """
    first = _first_nameless(layout)
    columns = [name for name in frame.columns if name != ROW]
    names = _column_names(layout)
    last_named = names[first - 1]
    nameless = [name for name in columns if name in names[first:]]
    if not nameless:
        return frame, 0
    is_filled = pl.any_horizontal(pl.col(name) != "" for name in nameless)
    filled = int(frame.select(is_filled.sum()).item())
    if last_named in columns and 0 < filled < frame.height / 2:
        joined = pl.concat_str([last_named, *nameless], separator=layout.dialect.delimiter)
        joined = joined.str.strip_chars_end(layout.dialect.delimiter)
        frame = frame.with_columns(pl.when(is_filled).then(joined).otherwise(last_named).alias(last_named))
        return frame.drop(nameless), filled
    if not filled or scope.only:
        frame = frame.drop([name for name in nameless if name not in scope.only])
    return frame, 0
