"""Mark what differs between two texts, character by character."""

from difflib import SequenceMatcher
from typing import NamedTuple

SHOWN = 300  # characters of each text
BEFORE = 60  # of them before the first difference, if the texts are longer


class Piece(NamedTuple):
    """A part of two texts: in both, removed from the old one, or added by the new one."""

    text: str
    kind: str  # "same", "removed" or "added"


def mark_changes(old: str, new: str) -> list[Piece]:
    """Return the pieces of two texts in their order. Long texts are cut to the part around the first difference."""
    pairs = enumerate(zip(old, new, strict=False))
    same = next((i for i, (before, after) in pairs if before != after), min(len(old), len(new)))
    start = max(0, same - BEFORE) if max(len(old), len(new)) > SHOWN else 0
    end = start + SHOWN
    before, after = old[start:end], new[start:end]
    pieces = [Piece("…", "same")] if start else []
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece(before[i:j], "same"))
            continue
        pieces += [Piece(before[i:j], "removed")] if j > i else []
        pieces += [Piece(after[k:m], "added")] if m > k else []
    return [*pieces, Piece("…", "same")] if max(len(old), len(new)) > end else pieces
