"""Read a data file into a table of strings: CSV, TSV, JSON, JSONL or Parquet, each also packed, in bounded memory.

Files that people send are read through `sandbox.py`, which calls `read` in a process of its own. Lines that cannot be read are
counted and kept with their number; none is dropped silently.
"""

import csv
import io
import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
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

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
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
            table = _read_text(plain, kind, Path(folder), limit, encoding, delimiter, scope)
    if not table.columns or table.frame.is_empty():
        raise no_rows()
    while head and table.frame.height > 1 and table.frame.estimated_size() > HEAD_BYTES:
        table.frame = table.frame.head(table.frame.height // 2).clone()
        table.complete = False
    return table


def _read_text(
    plain: Path, kind: str, scratch: Path, limit: int, encoding: str | None, delimiter: str | None, scope: ReadScope
) -> Table:
    detected = detect(plain)
    candidates = detected.candidates
    if encoding:
        detected = Detected(encoding, (encoding,))
        candidates = tuple(dict.fromkeys([encoding, *candidates]))
    text = plain
    if encoding or detected.has_bom or detected.encoding != "utf-8":
        text = _recode_to_utf8(plain, detected, scratch, limit)
    is_json = kind in ("json", "jsonl")
    table = _read_json(text, kind, scope, limit) if is_json else _read_csv(text, kind, delimiter, scope, limit)
    table.encoding = detected.encoding
    table.encodings = candidates
    return table


def _recode_to_utf8(plain: Path, detected: Detected, scratch: Path, limit: int) -> Path:
    """Write a UTF-8 copy. What cannot be decoded becomes U+FFFD, which the checks count."""
    codec = "utf-8-sig" if detected.encoding == "utf-8" else detected.encoding
    target = scratch / "utf8"
    written = 0
    try:
        with (
            open(plain, encoding=codec, errors="replace", newline="") as source,
            open(target, "w", encoding="utf-8", errors="replace", newline="") as out,
        ):
            while chunk := source.read(1 << 20):
                written += out.write(chunk)
                if written > limit:
                    raise too_large(limit)
    except (LookupError, UnicodeError):
        raise InvalidError(_("The file cannot be read in this encoding. Choose another."), field="encoding") from None
    return target


# --- CSV ---------------------------------------------------------------------------------------------------------


def _read_csv(text: Path, kind: str, delimiter: str | None, scope: ReadScope, limit: int) -> Table:
    sample = head_of(text, _HEADER_BYTES)
    if b"\n" not in sample and b"\r" not in sample and text.stat().st_size > len(sample):
        raise _line_too_long()
    lines = sample.decode("utf-8", "replace").lstrip("\ufeff")
    delimiter = delimiter or guess_delimiter(lines, "\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
        raise InvalidError(_("The delimiter must be one character, such as a comma or a tab."), field="delimiter")
    names = unique_names(_header(lines, delimiter))
    if not names:
        raise no_rows()
    frame, broken = _parse(text, names, delimiter, scope, limit, quoted=True)
    if frame is None or broken.hopeless or broken.lines > frame.height:
        # An unpaired quotation mark swallows everything up to the next one. Reading without quotes then loses less.
        names = unique_names(_header(lines, delimiter, quoted=False))
        plain, plain_broken = _parse(text, names, delimiter, scope, limit, quoted=False)
        if plain is not None and (frame is None or plain_broken.lines < broken.lines):
            frame, broken = plain, plain_broken
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


def _header(lines: str, delimiter: str, *, quoted: bool = True) -> list[str]:
    try:
        reader = csv.reader(
            io.StringIO(lines, newline=""), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
        return next((row for row in reader if row), [])
    except csv.Error:
        raise _line_too_long() from None


def guess_delimiter(lines: str, default: str) -> str:
    """Return the delimiter that splits the first lines most evenly into the most columns."""
    scores = {d: _evenness(lines, d) for d in DELIMITERS}
    best = max(scores, key=lambda d: (scores[d], d == default))
    return best if scores[best] > (0, 0) else default


def _evenness(lines: str, delimiter: str) -> tuple[float, int]:
    """Return the share of the first lines with as many fields as the header, and that number of fields."""
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter)
    try:
        widths = [len(row) for row in islice(reader, 60) if row]
    except csv.Error:
        return (0, 0)
    widths = widths[:-1] or widths  # the sample may end inside a record
    if not widths or widths[0] < 2:
        return (0, 0)
    return (round(widths.count(widths[0]) / len(widths), 1), widths[0])


def _parse(
    text: Path, names: list[str], delimiter: str, scope: ReadScope, limit: int, *, quoted: bool
) -> tuple[pl.DataFrame | None, BrokenRecords]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    broken = BrokenRecords()

    def skip(record: Any) -> str:
        broken.add((record.number or 1) - 1, record.text)
        return "error" if broken.hopeless else "skip"

    try:
        # Arrow tells the number of a broken record only with one thread. Reading in blocks keeps the file and its rows
        # from being in memory at once.
        reader = arrow.open_csv(
            text,
            arrow.ReadOptions(use_threads=False, block_size=LONGEST_LINE, column_names=names),
            arrow.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                invalid_row_handler=skip,
            ),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=[*scope.only]
            ),
        )
        blocks = []
        cells = 0
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


def _read_json(text: Path, kind: str, scope: ReadScope, limit: int) -> Table:
    if kind == "json":
        head = head_of(text).lstrip(b"\xef\xbb\xbf \t\r\n")
        try:
            return _from_list(text, scope, limit) if head[:1] == b"[" else _from_document(text, scope, limit)
        except RecursionError:
            raise InvalidError(_("This JSON file is nested too deeply. Nothing was stored."), field="file") from None
        except ValueError as error:
            if head[:1] != b"{" or head.count(b"\n{") == 0:
                message = _("This is not valid JSON: %(why)s. Nothing was stored.")
                raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
    return _from_lines(text, scope, limit)


def _from_list(text: Path, scope: ReadScope, limit: int) -> Table:
    broken = BrokenRecords()
    with open(text, encoding="utf-8-sig", errors="replace") as f:
        return _from_items(enumerate(_items(f), 1), broken, scope, limit)


def _from_items(items: Iterable[tuple[int, Any]], broken: BrokenRecords, scope: ReadScope, limit: int) -> Table:
    records = _only_objects(items, broken)
    table = _from_records(islice(records, HEAD_ROWS if scope.head else None), "json", broken, limit, scope.only)
    table.complete = next(records, None) is None
    return table


def _items(document: io.TextIOWrapper) -> Iterator[Any]:
    """Yield the items of a JSON list one by one. Raises ValueError if the document is not a valid list."""
    stream = _JsonStream(document)
    stream.expect("[")
    if stream.peek() != "]":
        yield stream.parse_value()
    while stream.expect(",]") == ",":
        yield stream.parse_value()
    if stream.peek():
        raise ValueError("there is something behind the list")


class _JsonStream:
    """Parses a JSON document of which only a piece is in memory."""

    def __init__(self, document: io.TextIOWrapper) -> None:
        self.document = document
        self.text = ""
        self.at = 0  # where in `text` parsing goes on
        self.decode = json.JSONDecoder().raw_decode

    def read_more(self) -> bool:
        """Read the next piece, twice as large as the unparsed text, so that a long value is not parsed many times."""
        piece = self.document.read(max(CHUNK, len(self.text) - self.at))
        self.text = self.text[self.at :] + piece
        self.at = 0
        return bool(piece)

    def peek(self) -> str:
        """Return the next character that is not white space; an empty string at the end."""
        while True:
            while self.text[self.at : self.at + 1] in _WHITE_SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.read_more():
                return self.text[self.at : self.at + 1]

    def expect(self, characters: str) -> str:
        """Consume and return the next character; raise ValueError if it is not one of these."""
        character = self.peek()
        if not character or character not in characters:
            raise ValueError(f"“{characters[0]}” is missing before “{self.text[self.at : self.at + 20]}”")
        self.at += 1
        return character

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


def _from_document(text: Path, scope: ReadScope, limit: int) -> Table:
    """Read an object of columns, or a list of objects; either may be wrapped in an object with one key, such as "data"."""
    document = json.loads(text.read_bytes())
    if isinstance(document, dict) and len(document) == 1:
        only_value = next(iter(document.values()))
        if isinstance(only_value, list) and only_value and isinstance(only_value[0], dict):
            document = only_value
    if isinstance(document, dict) and document and all(isinstance(v, list) for v in document.values()):
        names = list(document)
        values = list(document.values())
        if len({len(column) for column in values}) != 1:
            raise InvalidError(_("The columns of this JSON file differ in length. Nothing was stored."), field="file")
        items: Iterable[Any] = (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
    elif isinstance(document, list):
        items = document
    else:
        message = _("This JSON file is neither a list of objects nor an object of columns. Nothing was stored.")
        raise InvalidError(message, field="file")
    return _from_items(enumerate(items, 1), BrokenRecords(), scope, limit)


def _only_objects(items: Iterable[tuple[int, Any]], broken: BrokenRecords) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, item in items:
        if isinstance(item, dict):
            yield row, item
        else:
            _add_broken(broken, row, str(item))


def _add_broken(broken: BrokenRecords, row: int, text: str) -> None:
    broken.add(row, text)
    if broken.hopeless:
        raise mostly_broken(broken)


def _from_lines(text: Path, scope: ReadScope, limit: int) -> Table:
    broken = BrokenRecords()
    with open(text, encoding="utf-8-sig", errors="replace", newline="\n") as f:
        records = _only_objects(_parsed_lines(f, broken), broken)
        table = _from_records(islice(records, HEAD_ROWS if scope.head else None), "jsonl", broken, limit, scope.only)
        table.complete = not f.readline()
    return table


def _parsed_lines(lines: io.TextIOWrapper, broken: BrokenRecords) -> Iterator[tuple[int, Any]]:
    row = 0
    while line := lines.readline(LONGEST_LINE):
        if not line.strip():
            continue
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise _line_too_long()
        row += 1
        try:
            yield row, json.loads(line)
        except (ValueError, RecursionError):
            _add_broken(broken, row, line.rstrip())


def _from_records(
    records: Iterator[tuple[int, dict[str, Any]]],
    kind: str,
    broken: BrokenRecords,
    limit: int,
    only: tuple[str, ...] = (),
) -> Table:
    columns: dict[str, list[str]] = {}
    numbers = array("I")
    for row, record in records:
        for key in record:
            if key not in columns and (not only or key in only):
                if len(columns) >= MOST_COLUMNS:
                    raise InvalidError(_("This file has more than 1,000 columns. Nothing was stored."), field="file")
                columns[key] = [""] * len(numbers)
        for key, values in columns.items():
            values.append(cell(record.get(key)))
        numbers.append(row)
        refuse_cells(len(numbers) * max(1, len(columns)), limit)
    names = unique_names(columns)
    data: dict[str, pl.Series] = {
        n: pl.Series(v, dtype=pl.String) for n, v in zip(names, columns.values(), strict=True)
    }
    frame = pl.DataFrame({**data, ROW: pl.Series(numbers, dtype=pl.UInt32)})
    return table_of(frame, kind, broken)
