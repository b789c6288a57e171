r"""Cut lines into records of cells, obeying a quotation mark only where it quotes.

RFC 4180 has a cell in marks end with a mark before the next delimiter. Real files also have marks that quote nothing: a line
that begins with "I never said that, or a 5" pipe. Obeyed, they glue lines together until the next mark. Here a mark at the
beginning of a cell quotes only if a closing one stands before a delimiter or the end of a line; and lines are joined to one
record only if they would not be records alone.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_MOST_JOINED_LINES = 2000  # of one cell
_MOST_JOINED_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Dialect:
    """How records are written."""

    delimiter: str
    quote: str = '"'  # an empty string: marks are part of the texts
    escape: str = ""  # before a mark inside of a quoted cell; by default such a mark is doubled
    once: str = ""  # first or last: only this delimiter of a line counts
    is_padded: bool = False  # spaces may stand between a delimiter and a quotation mark


class Record(NamedTuple):
    cells: list[str]
    text: str  # as it stands in the file, without the end of its last line
    lines: int = 1
    first_line: int = 0  # its index among the lines that were read


class RecordReader:
    """Cuts lines into records. `width` and `classes` (see `dialects.Layout`) help to tell lines that are records alone."""

    def __init__(self, dialect: Dialect, width: int = 0, classes: "dict[int, frozenset[str]] | None" = None) -> None:
        self.dialect = dialect
        self.width = width
        self.classes = classes or {}
        self.blank_lines = 0
        self.literal_marks = 0  # records with marks that quote nothing
        quote = re.escape(dialect.quote or '"')
        delimiter = re.escape(dialect.delimiter)
        inside = rf"(?>[^{quote}\\]|\\.)*+" if dialect.escape else rf"(?>[^{quote}]|{quote}{quote})*+"
        # a quoted cell that ends where a cell can end, else whatever stands before the next delimiter
        space = " *" if dialect.is_padded else ""
        self._cell = re.compile(
            rf"(?:{space}{quote}({inside}){quote}{space}|((?:(?!{delimiter}).)*+))(?:({delimiter})|\Z)", re.DOTALL
        )
        self._closing = re.compile(rf"{quote}(?={space}(?:{delimiter}|[\r\n]|\Z))")

    def read(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield the records; blank lines between them are counted and left out."""
        waiting: deque[str] = deque()  # lines that were read ahead
        at = -1  # index of the line
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            at += 1
            text = line.rstrip("\r\n")
            if not text or (text.isspace() and self.dialect.delimiter not in text):
                self.blank_lines += 1
                continue
            if not self.dialect.quote or self.dialect.quote not in text:
                yield Record(self._split(text), text, first_line=at)
                continue
            cells, is_open, is_literal = self._split_quoted(text)
            if is_open:
                joined = self._join(line, waiting, lines)
                if joined:
                    yield joined._replace(first_line=at)
                    at += joined.lines - 1
                    continue
            self.literal_marks += is_literal
            yield Record(cells, text, first_line=at)

    def _split(self, text: str) -> list[str]:
        """Cut a line without quotation marks."""
        if self.dialect.once == "first":
            return text.split(self.dialect.delimiter, 1)
        if self.dialect.once == "last":
            return text.rsplit(self.dialect.delimiter, 1)
        return text.split(self.dialect.delimiter)

    def _split_quoted(self, text: str) -> tuple[list[str], bool, bool]:
        """Cut a record; also return whether its last quoted cell has no end, and whether a mark of it quotes nothing."""
        quote = self.dialect.quote
        escaped_quote = (self.dialect.escape or quote) + quote
        cells = []
        is_open = False
        is_literal = False
        at = 0
        while True:
            match = self._cell.match(text, at)
            assert match  # the second form matches anything
            quoted, plain, delimiter = match.groups()
            if quoted is not None:
                cells.append(quoted.replace(escaped_quote, quote))
            else:
                cells.append(plain)
                starts_with_mark = plain.lstrip(" " if self.dialect.is_padded else "").startswith(quote)
                is_literal = is_literal or starts_with_mark
                is_open = is_open or starts_with_mark
            at = match.end()
            if delimiter is None:  # the last cell
                return cells, is_open, is_literal

    def _join(self, line: str, waiting: deque[str], lines: Iterator[str]) -> Record | None:
        """Return the record of several lines that begins with this one; None if it is a record alone."""
        taken = [line]
        size = len(line)
        while len(taken) < _MOST_JOINED_LINES and size < _MOST_JOINED_CHARACTERS:
            following = waiting.popleft() if waiting else next(lines, None)
            if following is None:
                break
            taken.append(following)
            size += len(following)
            if not self._closing.search(following):
                continue
            text = "".join(taken).rstrip("\r\n")
            cells, is_open, _ = self._split_quoted(text)
            if not is_open and (not self.width or len(cells) == self.width):
                if self.width and all(self.is_record(part) for part in taken):
                    break
                return Record(cells, text, len(taken))
        waiting.extendleft(reversed(taken[1:]))
        return None

    def is_record(self, line: str) -> bool:
        """Return whether a line would be a record alone: as many cells as the others, and known classes among them."""
        cells = self._split(line.rstrip("\r\n"))
        return len(cells) == self.width and all(
            cells[i].strip().strip(self.dialect.quote) in values for i, values in self.classes.items()
        )
