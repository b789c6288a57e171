"""Read a data file into a table of strings: CSV, TSV, JSON, JSONL or Parquet, each also packed, in bounded memory.

Files that people send are read through `sandbox.py`, which calls `read` in a process of its own. Lines that cannot be read are
counted and kept with their number; none is dropped silently.
"""

import csv
import io
import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.archives import (
    CHUNK,
    head_of,
    kind_of,
    refuse_binary,
    refuse_cells,
    too_large,
    unpack,
)
from datasets_app.reading.encodings import ENCODINGS, READABLE, Detected, detect
from datasets_app.reading.parquet import read_parquet
from datasets_app.reading.table import (
    HEAD_BYTES,
    HEAD_ROWS,
    MOST_COLUMNS,
    ROW,
    BrokenRecords,
    ReadScope,
    Table,
    cell,
    mostly_broken,
    no_rows,
    numbers,
    table_of,
    unique_names,
)
from web.errors import InvalidError

DELIMITERS = ",\t;|"
LONGEST_LINE = 8 << 20  # bytes; a longer record is refused, so that one endless line cannot exhaust the memory
_HEADER_BYTES = 1 << 18
_WHITE_SPACE = frozenset(" \t\r\n")  # of JSON


def read(
    file: Path,
    filename: str,
    *,
    limit: int,
    encoding: str | None = None,
    delimiter: str | None = None,
    scratch: Path | None = None,
    head: bool = False,
    only: Sequence[str] = (),
) -> Table:
    """Read a file. Raises InvalidError or FileTooLargeError, with a message for the person who sent it.

    `limit`: bytes, both packed and unpacked. `scratch`: folder for unpacked and recoded copies. `head`: read only the first
    rows. `only`: read only these columns, so that a large file needs less memory.
    """
    if encoding and encoding not in READABLE:
        message = _("The encoding “%(name)s” is not supported. Choose one of: %(known)s.")
        raise InvalidError(message % {"name": encoding[:40], "known": ", ".join(ENCODINGS)}, field="encoding")
    scope = ReadScope(head, tuple(only))
    with tempfile.TemporaryDirectory(prefix="reading-", dir=scratch) as folder:
        plain, inner_name = unpack(file, Path(folder), limit=limit)
        first_bytes = head_of(plain)
        kind = kind_of(inner_name or filename, first_bytes)
        if kind == "parquet":
            table = read_parquet(plain, limit, scope)
        else:
            refuse_binary(first_bytes)
            text, detected = recode_to_utf8(plain, Path(folder), limit, encoding)
            is_json = kind in ("json", "jsonl")
            table = read_json(text, kind, scope, limit) if is_json else read_csv(text, kind, delimiter, scope, limit)
            table.encoding = detected.encoding
            table.encodings = detected.candidates
    if not table.columns or table.frame.is_empty():
        raise no_rows()
    while head and table.frame.height > 1 and table.frame.estimated_size() > HEAD_BYTES:
        table.frame = table.frame.head(table.frame.height // 2).clone()
        table.complete = False
    return table


def recode_to_utf8(plain: Path, scratch: Path, limit: int, chosen: str | None) -> tuple[Path, Detected]:
    """Return the file as UTF-8, a copy of it unless it is UTF-8 already, and its encoding: the chosen one, else a guess.

    What cannot be decoded becomes U+FFFD, which the checks count.
    """
    detected = detect(plain)
    if chosen:
        detected = Detected(chosen, tuple(dict.fromkeys([chosen, *detected.candidates])))
    elif detected.encoding == "utf-8" and not detected.has_bom:
        return plain, detected
    codec = "utf-8-sig" if detected.encoding == "utf-8" else detected.encoding
    target = scratch / "utf8"
    written = 0
    try:
        with (
            open(plain, encoding=codec, errors="replace", newline="") as source,
            open(target, "w", encoding="utf-8", errors="replace", newline="") as out,
        ):
            while chunk := source.read(CHUNK):
                written += out.write(chunk)
                if written > limit:
                    raise too_large(limit)
    except (LookupError, UnicodeError):
        raise InvalidError(_("The file cannot be read in this encoding. Choose another."), field="encoding") from None
    return target, detected


# --- CSV ---------------------------------------------------------------------------------------------------------


def read_csv(text: Path, kind: str, delimiter: str | None, scope: ReadScope, limit: int) -> Table:
    """Read a CSV or TSV file in UTF-8; the delimiter is guessed unless one is given."""
    sample = head_of(text, _HEADER_BYTES)
    if b"\n" not in sample and b"\r" not in sample and text.stat().st_size > len(sample):
        raise _line_too_long()
    lines = sample.decode("utf-8", "replace").lstrip("\ufeff")
    delimiter = delimiter or guess_delimiter(lines, "\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
        raise InvalidError(_("The delimiter must be one character, such as a comma or a tab."), field="delimiter")
    names = _column_names(lines, delimiter, quoted=True)
    if not names:
        raise no_rows()
    frame, broken = _parse(text, names, delimiter, scope, limit, quoted=True)
    if frame is None or broken.hopeless or broken.lines > frame.height:
        # An unpaired quotation mark swallows everything up to the next one. Reading without quotes then loses less.
        names = _column_names(lines, delimiter, quoted=False)
        plain, plain_broken = _parse(text, names, delimiter, scope, limit, quoted=False)
        if plain is not None and (frame is None or plain_broken.lines < broken.lines):
            frame = plain
            broken = plain_broken
    if broken.hopeless:
        raise mostly_broken(broken)
    if frame is None:
        raise _line_too_long()
    table = table_of(frame, kind, broken)
    table.delimiter = delimiter
    table.complete = not scope.head or text.stat().st_size <= LONGEST_LINE
    return table


def _line_too_long() -> InvalidError:
    message = _(
        "A line of this file is longer than %(limit)s MiB, or a quotation mark is never closed. Nothing was stored."
    )
    return InvalidError(message % {"limit": LONGEST_LINE >> 20}, field="file")


def guess_delimiter(lines: str, default: str) -> str:
    """Return the delimiter that splits the first lines most evenly into the most columns."""
    best = (0.0, 0, False)
    guess = default
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter)
        try:
            widths = [len(row) for row in islice(reader, 60) if row]
        except csv.Error:
            continue
        widths = widths[:-1] or widths  # the sample may end inside a record
        if not widths or widths[0] < 2:
            continue
        evenness = round(widths.count(widths[0]) / len(widths), 1)  # the share of lines as wide as the header
        score = (evenness, widths[0], delimiter == default)
        if score > best:
            best = score
            guess = delimiter
    return guess


def _column_names(lines: str, delimiter: str, *, quoted: bool) -> list[str]:
    reader = csv.reader(
        io.StringIO(lines, newline=""), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    try:
        header = next((row for row in reader if row), [])
    except csv.Error:
        raise _line_too_long() from None
    return unique_names(header)


def _parse(
    text: Path, names: list[str], delimiter: str, scope: ReadScope, limit: int, *, quoted: bool
) -> tuple[pl.DataFrame | None, BrokenRecords]:
    """Return the rows and the records that cannot be read; None in place of the rows where Arrow gives the file up."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    broken = BrokenRecords()

    def skip(record: "arrow.InvalidRow") -> str:
        broken.add((record.number or 1) - 1, record.text)
        return "error" if broken.hopeless else "skip"

    # Arrow tells the number of a broken record only with one thread.
    read_options = arrow.ReadOptions(use_threads=False, block_size=LONGEST_LINE, column_names=names)
    parse_options = arrow.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if quoted else False,
        newlines_in_values=quoted,
        invalid_row_handler=skip,
    )
    column_types = dict.fromkeys(names, pa.string())
    convert_options = arrow.ConvertOptions(
        column_types=column_types, strings_can_be_null=False, include_columns=[*scope.only]
    )
    blocks = []
    cells = 0
    try:
        # Reading in blocks keeps the file and its rows from being in memory at once.
        reader = arrow.open_csv(text, read_options, parse_options, convert_options)
        for batch in islice(reader, 1 if scope.head else None):
            cells += batch.num_rows * batch.num_columns
            refuse_cells(cells, limit)
            blocks.append(pl.DataFrame(batch))
    except pa.ArrowInvalid:
        return None, broken
    frame = pl.concat(blocks)
    pa.default_memory_pool().release_unused()
    frame = frame[1:] if 0 not in broken.numbers else frame  # the header is the first record
    return frame.with_columns(numbers(frame.height, broken.numbers)), broken


# --- JSON --------------------------------------------------------------------------------------------------------


def read_json(text: Path, kind: str, scope: ReadScope, limit: int) -> Table:
    """Read a JSON document, or JSON lines; a document that is none is tried as lines if it looks like them."""
    if kind == "json":
        head = head_of(text).lstrip(b"\xef\xbb\xbf \t\r\n")
        try:
            if head[:1] == b"[":
                with open(text, encoding="utf-8-sig", errors="replace") as document:
                    return _from_items(_JsonStream(document).list_items(), "json", scope, limit)
            return _from_items(_document_items(text), "json", scope, limit)
        except RecursionError:
            raise InvalidError(_("This JSON file is nested too deeply. Nothing was stored."), field="file") from None
        except ValueError as error:
            if head[:1] != b"{" or head.count(b"\n{") == 0:
                message = _("This is not valid JSON: %(why)s. Nothing was stored.")
                raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
    with open(text, encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        return _from_items(_line_items(lines), "jsonl", scope, limit)


class _JsonStream:
    """Parses a JSON document of which only a piece is in memory."""

    def __init__(self, document: io.TextIOWrapper) -> None:
        self.document = document
        self.text = ""
        self.at = 0  # where in `text` parsing goes on
        self.decode = json.JSONDecoder().raw_decode

    def list_items(self) -> Iterator[Any]:
        """Yield the items of a JSON list one by one. Raises ValueError if the document is not a valid list."""
        self.expect("[")
        if self.peek() != "]":
            yield self.parse_value()
        while self.expect(",]") == ",":
            yield self.parse_value()
        if self.peek():
            raise ValueError("there is something behind the list")

    def expect(self, characters: str) -> str:
        """Consume and return the next character; raise ValueError if it is not one of these."""
        character = self.peek()
        if not character or character not in characters:
            raise ValueError(f"“{characters[0]}” is missing before “{self.text[self.at : self.at + 20]}”")
        self.at += 1
        return character

    def peek(self) -> str:
        """Return the next character that is not white space; an empty string at the end."""
        while True:
            while self.text[self.at : self.at + 1] in _WHITE_SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.read_more():
                return self.text[self.at : self.at + 1]

    def parse_value(self) -> Any:
        """Consume and return the next value; raise ValueError if it is not valid."""
        self.peek()
        while True:
            problem: ValueError | None = None
            try:
                value, end = self.decode(self.text, self.at)
            except ValueError as error:
                problem = error
                end = len(self.text)
            if end < len(self.text):
                self.at = end
                return value
            if not self.read_more():  # a value that ends with the piece, even a number, may go on in the next one
                if problem:
                    raise problem
                self.at = len(self.text)
                return value

    def read_more(self) -> bool:
        """Read the next piece, twice as large as the unparsed text, so that a long value is not parsed many times."""
        piece = self.document.read(max(CHUNK, len(self.text) - self.at))
        self.text = self.text[self.at :] + piece
        self.at = 0
        return bool(piece)


def _document_items(text: Path) -> Iterator[Any]:
    """Yield the items of an object of columns, or of a list wrapped in an object with one key, such as "data"."""
    document = json.loads(text.read_bytes())
    if isinstance(document, dict) and len(document) == 1:
        only_value = next(iter(document.values()))
        if isinstance(only_value, list) and only_value and isinstance(only_value[0], dict):
            document = only_value
    if isinstance(document, list):
        yield from document
    elif isinstance(document, dict) and document and all(isinstance(v, list) for v in document.values()):
        if len({len(column) for column in document.values()}) != 1:
            raise InvalidError(_("The columns of this JSON file differ in length. Nothing was stored."), field="file")
        for row in zip(*document.values(), strict=True):
            yield dict(zip(document, row, strict=True))
    else:
        message = _("This JSON file is neither a list of objects nor an object of columns. Nothing was stored.")
        raise InvalidError(message, field="file")


def _line_items(lines: io.TextIOWrapper) -> Iterator[Any]:
    """Yield the values of JSON lines; the text of a line that cannot be parsed, which is no record either."""
    while line := lines.readline(LONGEST_LINE):
        if not line.strip():
            continue
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise _line_too_long()
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = line.rstrip()
        yield value


def _from_items(items: Iterator[Any], kind: str, scope: ReadScope, limit: int) -> Table:
    """Return the table of the items that are objects; the others are counted as broken records."""
    broken = BrokenRecords()
    columns: dict[str, list[str]] = {}
    row_numbers = array("I")
    complete = True
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            broken.add(number, str(item))
            if broken.hopeless:
                raise mostly_broken(broken)
            continue
        if scope.head and len(row_numbers) == HEAD_ROWS:
            complete = False
            break
        for key in item:
            if key not in columns and (not scope.only or key in scope.only):
                if len(columns) >= MOST_COLUMNS:
                    raise InvalidError(_("This file has more than 1,000 columns. Nothing was stored."), field="file")
                columns[key] = [""] * len(row_numbers)
        for key, values in columns.items():
            values.append(cell(item.get(key)))
        row_numbers.append(number)
        refuse_cells(len(row_numbers) * max(1, len(columns)), limit)
    names = unique_names(columns)
    series = [pl.Series(name, column, pl.String) for name, column in zip(names, columns.values(), strict=True)]
    frame = pl.DataFrame([*series, pl.Series(ROW, row_numbers, pl.UInt32)])
    table = table_of(frame, kind, broken)
    table.complete = complete
    return table
