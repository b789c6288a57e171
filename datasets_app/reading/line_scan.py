"""Count the lines of a delimited file by its bytes, ten times as fast as a parser of its cells.

Quotation marks alternate: one opens a cell, the next one closes it, and a doubled mark closes and opens. So a file is quoted as
RFC 4180 has it if each opening mark stands behind a delimiter, a line end or a closing mark, and each closing one before
such. Files with other marks are left to a parser.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets_app.reading.archives import CHUNK

_LF = 10
_CR = 13
_MARK = 34


@dataclass
class ScannedLines:
    """Where the lines of a file stand."""

    header: int = 0  # lines of the first record
    blank: int = 0
    inside: int = 0  # that end inside of a quoted cell
    total: int = 0


def scan_lines(text: Path, delimiter: str, *, skipped_lines: int, has_marks: bool) -> ScannedLines | None:
    """Count the lines behind the skipped ones; None if the bytes do not tell.

    `has_marks`: whether quotation marks quote. The delimiter is a character of ASCII.
    """
    with open(text, "rb") as file:
        for _ in range(skipped_lines):
            if b"\r" in file.readline().removesuffix(b"\n").removesuffix(b"\r"):
                return None
        return _scan(file, ord(delimiter), has_marks=has_marks)


def _scan(file: BinaryIO, delimiter: int, *, has_marks: bool) -> ScannedLines | None:
    lines = ScannedLines()
    is_open = 0  # 1 inside of a quoted cell
    before = b"\n\n"  # the two bytes before the block
    block = file.read(CHUNK)
    while block:
        following = file.read(CHUNK)
        padded = np.frombuffer(before + block + (following[:1] or b"\n"), dtype=np.uint8)
        marks = np.flatnonzero(padded[2:-1] == _MARK) + 2 if has_marks else np.empty(0, dtype=np.intp)
        if not _all_beside(padded[marks[is_open::2] - 1], delimiter):
            return None
        if not _all_beside(padded[marks[1 - is_open :: 2] + 1], delimiter):
            return None
        ends = np.flatnonzero(padded[2:-1] == _LF) + 2
        returns = np.flatnonzero(padded[2:-1] == _CR) + 2
        if (padded[returns + 1] != _LF).any():  # CR alone ends a line, too
            return None
        is_inside = (np.searchsorted(marks, ends) + is_open) % 2 == 1
        outside = ends[~is_inside]
        contents_end = outside - (padded[outside - 1] == _CR)
        is_blank = padded[contents_end - 1] == _LF
        if not lines.header and outside.size:
            if is_blank[0]:
                return None
            lines.header = lines.inside + int(np.searchsorted(ends, outside[0])) + 1
        lines.blank += int(is_blank.sum())
        lines.inside += int(is_inside.sum())
        lines.total += len(ends)
        is_open = (is_open + len(marks)) % 2
        before = (before + block)[-2:]
        block = following
    lines.total += before[-1:] != b"\n"
    return None if is_open or not lines.header else lines


def _all_beside(neighbours: "np.ndarray", delimiter: int) -> bool:
    """Return whether each byte beside a mark ends a cell."""
    is_end = (neighbours == delimiter) | (neighbours == _LF) | (neighbours == _CR) | (neighbours == _MARK)
    return bool(is_end.all())
