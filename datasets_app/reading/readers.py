"""A data file to a table of strings: CSV, TSV, JSON, JSONL and Parquet, each also gzipped, in bounded memory.

A file that somebody sent is read by way of `sandbox.py`, which calls `read` in a process of its own.
Lines that cannot be read are counted and kept by number; they are never silently dropped.
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
    Broken,
    Part,
    Table,
    cell,
    mostly_broken,
    no_rows,
    numbers,
    table_of,
    unique_names,
)
from web.errors import Invalid

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
LONGEST_LINE = 8 << 20  # bytes; a longer record is refused, so that one endless line cannot fill the memory
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
    """Read a file. Raises Invalid or TooLarge, with a sentence for the person who sent it.

    `limit` is in bytes, packed and unpacked; `scratch` is where unpacked and recoded copies lie meanwhile. `head`: its
    first rows suffice. `only`: the columns that are wanted, where they are known; a large file needs less memory then.
    """
    if encoding and encoding not in READABLE:
        message = _("There is no encoding “%(name)s” here. Choose one of: %(known)s.")
        raise Invalid(message % {"name": encoding[:40], "known": ", ".join(ENCODINGS)}, field="encoding")
    part = Part(head, tuple(only))
    with tempfile.TemporaryDirectory(prefix="reading-", dir=scratch) as folder:
        plain, inside = unpack(file, Path(folder), limit=limit)
        first = head_of(plain)
        kind = kind_of(inside or filename, first)
        if kind == "parquet":
            table = read_parquet(plain, limit, part)
        else:
            refuse_binary(first)
            table = _read_text(plain, kind, Path(folder), limit, encoding, delimiter, part)
    if not table.columns or table.frame.is_empty():
        raise no_rows()
    while head and table.frame.height > 1 and table.frame.estimated_size() > HEAD_BYTES:
        table.frame, table.complete = table.frame.head(table.frame.height // 2).clone(), False
    return table


def _read_text(
    plain: Path, kind: str, scratch: Path, limit: int, encoding: str | None, delimiter: str | None, part: Part
) -> Table:
    found = Detected(encoding, (encoding,)) if encoding else detect(plain)
    text = _as_utf8(plain, found, scratch, limit) if encoding or found.has_bom or found.encoding != "utf-8" else plain
    table = (
        _read_json(text, kind, part, limit)
        if kind in ("json", "jsonl")
        else _read_csv(text, kind, delimiter, part, limit)
    )
    others = found.candidates if not encoding else tuple(dict.fromkeys([encoding, *detect(plain).candidates]))
    table.encoding, table.encodings = found.encoding, others
    return table


def _as_utf8(plain: Path, found: Detected, scratch: Path, limit: int) -> Path:
    """A UTF-8 copy; what cannot be decoded becomes U+FFFD, which the checks then count."""
    codec = "utf-8-sig" if found.encoding == "utf-8" else found.encoding
    target, done = scratch / "utf8", 0
    try:
        with (
            open(plain, encoding=codec, errors="replace", newline="") as source,
            open(target, "w", encoding="utf-8", errors="replace", newline="") as out,
        ):
            while chunk := source.read(1 << 20):
                done += out.write(chunk)
                if done > limit:
                    raise too_large(limit)
    except (LookupError, UnicodeError):
        raise Invalid(_("This file cannot be read in that encoding. Choose another."), field="encoding") from None
    return target


# --- CSV ---------------------------------------------------------------------------------------------------------


def _read_csv(text: Path, kind: str, delimiter: str | None, part: Part, limit: int) -> Table:
    sample = head_of(text, _HEADER_BYTES)
    if b"\n" not in sample and b"\r" not in sample and text.stat().st_size > len(sample):
        raise _line_too_long()
    lines = sample.decode("utf-8", "replace").lstrip("\ufeff")
    delimiter = delimiter or guess_delimiter(lines, "\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
        raise Invalid(_("The delimiter must be one character, such as a comma or a tab."), field="delimiter")
    names = unique_names(_header(lines, delimiter))
    if not names:
        raise no_rows()
    frame, broken = _parse(text, names, delimiter, part, limit, quoted=True)
    if frame is None or broken.hopeless or broken.lines > frame.height:
        # A lone quotation mark swallows everything up to the next one; reading without quotes then loses less.
        names = unique_names(_header(lines, delimiter, quoted=False))
        plain, plain_broken = _parse(text, names, delimiter, part, limit, quoted=False)
        if plain is not None and (frame is None or plain_broken.lines < broken.lines):
            frame, broken = plain, plain_broken
    if broken.hopeless:
        raise mostly_broken(broken)
    if frame is None:
        raise _line_too_long()
    table = table_of(frame, kind, broken)
    table.delimiter = delimiter
    table.complete = not part.head or text.stat().st_size <= LONGEST_LINE
    return table


def _line_too_long() -> Invalid:
    message = _(
        "A line of this file is longer than %(limit)s MiB, or a quotation mark is never closed. Nothing was stored."
    )
    return Invalid(message % {"limit": LONGEST_LINE >> 20}, field="file")


def _header(lines: str, delimiter: str, *, quoted: bool = True) -> list[str]:
    try:
        reader = csv.reader(
            io.StringIO(lines, newline=""), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
        return next((row for row in reader if row), [])
    except csv.Error:
        raise _line_too_long() from None


def guess_delimiter(lines: str, default: str) -> str:
    """The delimiter that splits the first lines most evenly into most columns."""
    scores = {d: _evenness(lines, d) for d in DELIMITERS}
    best = max(scores, key=lambda d: (scores[d], d == default))
    return best if scores[best] > (0, 0) else default


def _evenness(lines: str, delimiter: str) -> tuple[float, int]:
    try:
        rows = [
            len(row)
            for row, _n in zip(csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter), range(60), strict=False)
            if row
        ]
    except csv.Error:
        return (0, 0)
    rows = rows[:-1] or rows  # the sample may end inside a record
    if not rows or rows[0] < 2:
        return (0, 0)
    return (round(rows.count(rows[0]) / len(rows), 1), rows[0])


def _parse(
    text: Path, names: list[str], delimiter: str, part: Part, limit: int, *, quoted: bool
) -> tuple[pl.DataFrame | None, Broken]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    broken = Broken()

    def skip(record: Any) -> str:
        broken.add((record.number or 1) - 1, record.text)
        return "error" if broken.hopeless else "skip"

    try:
        # One thread: only then does Arrow say which record was broken. Block by block, so that the file is never whole
        # in memory beside its rows.
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
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=[*part.only]
            ),
        )
        blocks, cells = [], 0
        for batch in islice(reader, 1 if part.head else None):
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


def _read_json(text: Path, kind: str, part: Part, limit: int) -> Table:
    if kind == "json":
        head = head_of(text).lstrip(b"\xef\xbb\xbf \t\r\n")
        try:
            return _from_list(text, part, limit) if head[:1] == b"[" else _from_document(text, part, limit)
        except RecursionError:
            raise Invalid(_("This JSON file is nested too deeply. Nothing was stored."), field="file") from None
        except ValueError as error:
            if head[:1] != b"{" or head.count(b"\n{") == 0:
                message = _("This is not valid JSON: %(why)s. Nothing was stored.")
                raise Invalid(message % {"why": str(error)[:120]}, field="file") from None
    return _from_lines(text, part, limit)


def _from_list(text: Path, part: Part, limit: int) -> Table:
    broken = Broken()
    with open(text, encoding="utf-8-sig", errors="replace") as f:
        records = _only_objects(enumerate(_items(f), 1), broken)
        table = _from_records(islice(records, HEAD_ROWS if part.head else None), "json", broken, limit, part.only)
        table.complete = next(records, None) is None
    return table


def _items(document: io.TextIOWrapper) -> Iterator[Any]:
    """The items of the list that a JSON document is, one by one. Raises ValueError where it is not valid."""
    rest = _Rest(document)
    rest.take("[")
    if rest.peek() != "]":
        yield rest.item()
    while rest.take(",]") == ",":
        yield rest.item()
    if rest.peek():
        raise ValueError("there is something behind the list")


class _Rest:
    """What is still to be parsed of a JSON document, of which only a piece is in memory."""

    def __init__(self, document: io.TextIOWrapper) -> None:
        self.document, self.text, self.at = document, "", 0
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        """Read on, each time twice as much of the same item, so that a long one is not parsed many times."""
        piece = self.document.read(max(CHUNK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is no white space; an empty string at the end."""
        while True:
            while self.text[self.at : self.at + 1] in _WHITE_SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            raise ValueError(f"“{expected[0]}” is missing before “{self.text[self.at : self.at + 20]}”")
        self.at += 1
        return found

    def item(self) -> Any:
        self.peek()
        while True:
            problem: ValueError | None = None
            try:
                found, end = self.decode(self.text, self.at)
            except ValueError as error:
                problem, end = error, len(self.text)
            if end < len(self.text):
                self.at = end
                return found
            if not self.more():  # else the item, even a number, may go on in the next piece
                if problem:
                    raise problem
                self.at = len(self.text)
                return found


def _from_document(text: Path, part: Part, limit: int) -> Table:
    """One object of columns, each a list; or either that or a list of objects under a single key such as "data"."""
    document = json.loads(text.read_bytes())
    if isinstance(document, dict) and len(document) == 1 and _is_records(*document.values()):
        document = next(iter(document.values()))
    if isinstance(document, dict) and document and all(isinstance(v, list) for v in document.values()):
        names, values = list(document), list(document.values())
        if len({len(v) for v in values}) != 1:
            raise Invalid(_("The columns of this JSON file differ in length. Nothing was stored."), field="file")
        items: Iterable[Any] = (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
    elif isinstance(document, list):
        items = document
    else:
        message = _("This JSON file is neither a list of objects nor an object of columns. Nothing was stored.")
        raise Invalid(message, field="file")
    broken = Broken()
    records = _only_objects(enumerate(items, 1), broken)
    table = _from_records(islice(records, HEAD_ROWS if part.head else None), "json", broken, limit, part.only)
    table.complete = next(records, None) is None
    return table


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _only_objects(items: Iterable[tuple[int, Any]], broken: Broken) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, item in items:
        if isinstance(item, dict):
            yield row, item
        else:
            _add(broken, row, str(item))


def _add(broken: Broken, row: int, text: str) -> None:
    broken.add(row, text)
    if broken.hopeless:
        raise mostly_broken(broken)


def _from_lines(text: Path, part: Part, limit: int) -> Table:
    broken = Broken()
    with open(text, encoding="utf-8-sig", errors="replace", newline="\n") as f:
        records = _only_objects(_parsed_lines(f, broken), broken)
        table = _from_records(islice(records, HEAD_ROWS if part.head else None), "jsonl", broken, limit, part.only)
        table.complete = not f.readline()
    return table


def _parsed_lines(lines: io.TextIOWrapper, broken: Broken) -> Iterator[tuple[int, Any]]:
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
            _add(broken, row, line.rstrip())


def _from_records(
    records: Iterator[tuple[int, dict[str, Any]]],
    kind: str,
    broken: Broken,
    limit: int,
    only: tuple[str, ...] = (),
) -> Table:
    columns: dict[str, list[str]] = {}
    numbers = array("I")
    for row, record in records:
        for key in record:
            if key not in columns and (not only or key in only):
                if len(columns) >= MOST_COLUMNS:
                    raise Invalid(_("This file has more than 1,000 columns. Nothing was stored."), field="file")
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
