"""Guess how a delimited text file is written: delimiter, quotation mark, lines before the header, and whether there is one.

Everything is decided from the first lines, and only what a person did not say. The numbers below come from real files; each
rule has its smallest file in the tests.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

from datasets_app.reading.names import LABEL_NAMES, TEXT_NAMES
from datasets_app.reading.options import FileOptions
from datasets_app.reading.records import Dialect, Record, RecordReader
from web.errors import InvalidError

DELIMITERS = ",\t;|"
UNMISTAKABLE_DELIMITERS = ("_!_", "::", "\x01", "\x1f")  # texts hardly ever hold them
RARE_DELIMITERS = "@^~# :"  # tried when none of the others gives even lines
_EVEN = 0.8  # share of lines with the usual number of cells, from which a delimiter is taken for certain
_PARAGRAPHS = 0.2  # share of blank lines, from which the others are paragraphs
_FEW_LINES = 200  # that tell prose from records
_SAMPLE_RECORDS = 1000
_MOST_PREAMBLE = 50  # lines before the header
_FEW_VALUES = 100  # different values of a column that names classes
_LONGEST_CLASS = 60  # characters of a class's name
_MANY_LINES = 10  # that are even by no accident
_R_CELL = r'(?:"(?:[^"\\]|\\.)*+"|NA|TRUE|FALSE|[-+.\deE]+)'
_R_LINE = re.compile(rf"{_R_CELL}(?: {_R_CELL})+")
_LABEL_WORD = re.compile(
    r"(?i:pos|neg|neu|positive|negative|neutral|spam|ham|yes|no|true|false|good|bad)|[A-Z\d_:.+-]*[A-Z\d]|\w+:\w+"
)
_LONG_CELL = 60  # characters: no column is called so


@dataclass(frozen=True)
class Layout:
    """A dialect, and where the rows begin."""

    dialect: Dialect
    skipped_lines: int  # before the header, or before the first row where there is none
    names: list[str]  # of the header; empty where there is none
    width: int  # cells of a record
    has_row_names: bool = False  # the first cell of each record has no name
    nameless_last: bool = False  # the last cell of each record has no name
    missing_name: str = ""  # the last name of a header with one name more than the records have cells
    classes: dict[int, frozenset[str]] = field(default_factory=dict)  # {column: its values}, where they are few


def guess_layout(lines: Sequence[str], options: FileOptions, default_delimiter: str) -> Layout:
    """Return the layout of a file that begins with these lines. A choice in `options` is not doubted."""
    start = options.skip_lines or 0
    delimiter = options.delimiter
    if not start and (named := re.fullmatch(r'"?sep=(.)"?\s*', lines[0] if lines else "")):
        start = 1  # Excel's first line names the delimiter
        delimiter = delimiter or named.group(1)
    body = lines[start:]
    dialect = guess_dialect(body, delimiter, options.quote, default_delimiter)
    records = _parse(body, dialect)
    if not records:
        return Layout(dialect, start, [], 1)

    width = _usual_width(records)
    if 1 < count_named(records[0].cells) < len(records[0].cells):
        width = len(records[0].cells)
    if options.skip_lines is None:
        records = records[count_preamble(records, width) :]
        start += records[0].first_line  # blank lines among those of the preamble count, too
    cells = [record.cells for record in records]
    first = cells[0]
    rows = [row for row in cells[1:] if len(row) == width]
    is_shorter = len(first) == width - 1 and len(rows) > 1 and any(row[-1].strip() for row in rows)
    has_row_names = is_shorter and len({row[0] for row in rows}) == len(rows)
    has_header = options.header
    if has_header is None:
        has_header = has_row_names or len(first) != width or is_header(first, rows)
    data = rows if has_header else [row for row in cells if len(row) == width]
    classes = _find_classes(data, width)
    if not has_header:
        return Layout(dialect, start, [], width, classes=classes)
    if abs(len(first) - width) > 1:
        raise _header_differs(first, width)
    names, missing_name = fit_names(first, width, has_row_names=has_row_names)
    nameless_last = len(first) == width - 1 and not has_row_names
    return Layout(dialect, start, names, width, has_row_names, nameless_last, missing_name, classes)


def _header_differs(first: Sequence[str], width: int) -> InvalidError:
    """Return the error for a header that does not fit the lines below it."""
    message = _(
        "The header has %(names)s names (%(first)s), but the lines below it have %(cells)s cells. Nothing was stored. Check the "
        "delimiter, or say how many lines stand before the header, or that there is none."
    )
    facts = {"names": len(first), "first": ", ".join(first[:5])[:80], "cells": width}
    return InvalidError(message % facts, field="header")


def fit_names(first: Sequence[str], width: int, *, has_row_names: bool) -> tuple[list[str], str]:
    """Return the names of a header fitted to the records, and the last name where it has one more than they have cells."""
    names = [*first]
    if has_row_names:
        return ["row name", *names], ""
    if len(names) == width + 1:
        return names[:width], names[width].strip()
    return names[:width] + [""] * (width - len(names)), ""


# --- delimiter and quotation mark ------------------------------------------------------------------------------------


def guess_dialect(lines: Sequence[str], delimiter: str, quote: str | None, default: str) -> Dialect:
    """Return the dialect that cuts the lines most evenly into the most cells, some of which name classes."""
    quote = guess_quote(lines) if quote is None else quote
    escape = "\\" if quote and escapes_with_backslash(lines, quote) else ""
    padded = bool(quote) and pads_marks(lines, quote)
    if not delimiter and is_written_by_r(lines):
        return Dialect(" ", quote, escape)
    scored = []
    usual = [delimiter] if delimiter else [*DELIMITERS, *UNMISTAKABLE_DELIMITERS]
    for candidate in usual:
        dialect = Dialect(candidate, quote, escape, is_padded=padded)
        share, width, has_classes = _score(lines, dialect)
        evenness = round(share, 1)
        rank = (evenness >= _EVEN and has_classes, evenness, width, share, candidate == default)
        scored.append((rank, dialect))
    (has_classes, evenness, width, share, _is_default), best = max(scored, key=lambda pair: pair[0])
    if has_classes or (share == 1 and width > 1 and len(lines) >= _MANY_LINES):
        return best
    # Most lines have a quoted cell with a JSON list of objects, whose marks are doubled: each delimiter counts.
    if sum('"[{""' in line for line in lines) * 2 > len(lines):
        return best if width > 1 else Dialect(default, quote, escape, is_padded=padded)
    # Perhaps only the first or the last delimiter of a line counts, because texts hold it too.
    is_even = evenness >= _EVEN and width > 1
    for candidate in usual if delimiter or is_even else [*usual, *RARE_DELIMITERS]:
        for once in ("", "first", "last"):
            dialect = Dialect(candidate, "" if once else quote, "" if once else escape, once, padded and not once)
            if separates_classes(lines, dialect):
                return dialect
    if width < 2 and not delimiter:
        return Dialect(default, quote, escape, is_padded=padded)
    return best


def guess_quote(lines: Sequence[str]) -> str:
    """Return the quotation mark: the single one where it begins and ends most cells, as in 'sport';'The text'."""
    singles = sum(bool(re.search(r"(?:^|[,\t;|])'.*'(?:$|[,\t;|])", line.rstrip("\r\n"))) for line in lines)
    doubles = sum('"' in line for line in lines)
    return "'" if singles > max(len(lines) * 0.5, doubles) else '"'


def escapes_with_backslash(lines: Sequence[str], quote: str) -> bool:
    r"""Return whether marks inside of quoted cells are written \" (R, MySQL), and not doubled.

    Only marks before an ordinary character tell: a quoted cell may end with a backslash, or be empty.
    """
    inside = rf"(?=[^{quote}{re.escape(DELIMITERS)}\r\n])"
    escaped = re.compile(rf"\\{quote}{inside}")
    doubled = re.compile(rf"[^{quote}{re.escape(DELIMITERS)}]{quote}{quote}{inside}")
    return sum(bool(escaped.search(line)) for line in lines) > sum(bool(doubled.search(line)) for line in lines)


def is_written_by_r(lines: Sequence[str]) -> bool:
    """Return whether the cells are what R's write.table writes by default: texts in marks, and numbers, with spaces between."""
    filled = [line.strip() for line in lines if line.strip()]
    matching = sum(bool(_R_LINE.fullmatch(line)) for line in filled)
    return matching > len(filled) * 0.95 and any('" "' in line for line in filled)


def pads_marks(lines: Sequence[str], quote: str) -> bool:
    """Return whether most lines have spaces between a delimiter and a quotation mark, as in "The text", "bad"."""
    padded = re.compile(rf"[{DELIMITERS}] +{quote}[^{quote}]*{quote} *(?:[{DELIMITERS}]|$)")
    return sum(bool(padded.search(line.rstrip("\r\n"))) for line in lines) > len(lines) * 0.5


def _score(lines: Sequence[str], dialect: Dialect) -> tuple[float, int, bool]:
    """Return the share of records with the usual number of cells, this number, and whether a column names classes."""
    records = _parse(lines, dialect)
    width = _usual_width(records) if records else 0
    if width < 2:
        return 0.0, width, False
    named = count_named(records[0].cells)
    if 1 < named < len(records[0].cells):  # texts may run on into the columns without a name
        even = sum(len(record.cells) >= named for record in records)
        return even / len(records), len(records[0].cells), True
    cells = [record.cells for record in records if len(record.cells) == width]
    return len(cells) / len(records), width, any(len(values) > 1 for values in _find_classes(cells, width).values())


def separates_classes(lines: Sequence[str], dialect: Dialect) -> bool:
    """Return whether the lines fall into two cells nearly all, of which one has few short values and the other is a text."""
    records = [record.cells for record in _parse(lines, dialect)]
    pairs = [cells for cells in records if len(cells) == 2]
    if len(pairs) < 4 or len(pairs) < len(records) * 0.95:
        return False
    classes = _find_classes(pairs, 2)
    if len(classes) != 1 or any(len(values) < 2 for values in classes.values()):
        return False
    # A first word is a label if it looks like one: in "Turn on the light" it is a word, and in "bad: Cold fish" the colon delimits.
    if dialect.delimiter == " " and not all(_LABEL_WORD.fullmatch(value) for value in next(iter(classes.values()))):
        return False
    text = 1 - next(iter(classes))
    lengths = sorted(len(cells[text]) for cells in pairs)
    return lengths[len(lengths) // 2] >= 10 and any(" " in cells[text] or not cells[text].isascii() for cells in pairs)


def are_records(lines: Sequence[str]) -> bool:
    """Return whether lines are the records of a table: cut evenly into cells, or with a column of classes.

    Records have no blank lines between them, as paragraphs have. Few lines tell: where quotation marks of a text do not
    come in pairs, records would be joined line after line.
    """
    lines = lines[:_FEW_LINES]
    filled = [line for line in lines if line.strip()]
    if len(lines) - len(filled) >= _PARAGRAPHS * len(lines):
        return False
    try:
        layout = guess_layout(filled, FileOptions(), ",")
    except InvalidError:  # a header that does not fit
        return True
    records = _parse(filled, layout.dialect)
    even = sum(len(record.cells) == layout.width for record in records)
    return bool(layout.classes) or (layout.width > 1 and even >= _EVEN * len(records))


def _parse(lines: Sequence[str], dialect: Dialect) -> list[Record]:
    reader = RecordReader(dialect)
    records = []
    for record in reader.read(iter(lines)):
        records.append(record)
        if len(records) == _SAMPLE_RECORDS:
            break
    return records


def count_named(first: Sequence[str]) -> int:
    """Return how many names a header has before the columns at its end that have none."""
    named = len(first)
    while named > 1 and not first[named - 1].strip():
        named -= 1
    return named


def _usual_width(records: Sequence[Record]) -> int:
    """Return the most frequent number of cells; of equally frequent ones the largest."""
    counts = Counter(len(record.cells) for record in records)
    return max(counts, key=lambda width: (counts[width], width))


# --- the header ------------------------------------------------------------------------------------------------------


def count_preamble(records: Sequence[Record], width: int) -> int:
    """Return how many records stand before the header: titles and comments, which have fewer cells than the others.

    A header may have one name fewer (row names without a name) or more (an unused one at its end) than records have cells.
    """
    first_even = next((i for i, record in enumerate(records) if len(record.cells) == width), 0)
    if first_even > _MOST_PREAMBLE:
        return 0
    if first_even == 0:
        return _count_sparse(records, width)
    before = records[first_even - 1].cells
    below = [record.cells for record in records[first_even + 1 :] if len(record.cells) == width]
    if (len(before) == 1 and width > 2) or is_header(records[first_even].cells, below, by_name_only=True):
        return first_even  # a title or comment stands before the header
    return first_even - 1 if len(before) > 1 else first_even


def _count_sparse(records: Sequence[Record], width: int) -> int:
    """Return how many titles stand before the header that have as many cells as it, all but one of them empty."""
    filled = [sum(bool(cell.strip()) for cell in record.cells) for record in records[: _MOST_PREAMBLE + 1]]
    first_full = next((i for i, cells in enumerate(filled) if cells > 1), 0)
    if width < 3 or not first_full or filled[first_full] < width:
        return 0
    below = [record.cells for record in records[first_full + 1 :] if len(record.cells) == width]
    # Cells are filled where the lines above have none: these name nothing.
    nameless = [i for i in range(width) if not any(record.cells[i : i + 1] > [""] for record in records[:first_full])]
    is_filled = [bool(cells[i].strip()) for cells in below for i in nameless]
    is_title = sum(is_filled) > len(is_filled) / 2
    return first_full if is_title or is_header(records[first_full].cells, below, by_name_only=True) else 0


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]], *, by_name_only: bool = False) -> bool:
    """Return whether the first record names the columns; where nothing tells, it does, unless `by_name_only`."""
    if not rows:
        return True
    for i, cell in enumerate(first):
        counts = Counter(row[i] for row in rows)
        repeats = len(counts) <= max(2, len(rows) // 3) and len(counts) <= _FEW_VALUES
        # one of the few values that repeat in its column is no name
        if repeats and counts[cell] >= 2 and cell.strip() and cell not in ("label", "class"):
            return False
    known = {*TEXT_NAMES, *LABEL_NAMES, "id", "index", "split", "text", "label"}
    if any(" ".join(cell.lower().split()) in known for cell in first):
        return True
    for i, cell in enumerate(first):
        values = [row[i] for row in rows]
        filled = [value for value in values if value.strip()]
        is_numeric = bool(filled) and sum(map(is_number, filled)) >= len(filled) * 0.95
        if is_numeric and is_number(cell):
            return False
        if len(cell) > _LONG_CELL:
            return False
        lengths = sorted(len(value) for value in values)
        # a text as long as the others, of several words, is no name
        if lengths[len(lengths) // 2] > 20 and len(cell) >= lengths[len(lengths) // 10] and len(cell.split()) > 3:
            return False
    return not by_name_only


def is_number(cell: str) -> bool:
    """Return whether a cell is a number as programs write it."""
    return bool(re.fullmatch(r"\s*[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?\s*", cell))


def _find_classes(rows: Sequence[Sequence[str]], width: int) -> dict[int, frozenset[str]]:
    """Return {column: its values} of the columns with few short values that repeat."""
    classes = {}
    for i in range(width):
        counts = Counter(row[i] for row in rows if len(row) == width)
        repeated = [value for value, count in counts.items() if count > 1]
        is_few = len(counts) <= _FEW_VALUES and len(counts) <= max(2, sum(counts.values()) // 4)
        if is_few and repeated and max(map(len, counts)) <= _LONGEST_CLASS:
            classes[i] = frozenset(counts)
    return classes
