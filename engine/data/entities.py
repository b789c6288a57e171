"""The entities of texts as one array, and which of them a model that gives each token one tag can learn.

An array of entities is (entities, 4) int64: the row of its text, start and end in code points, and the index of its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROW, START, END, LABEL = range(4)


@dataclass(frozen=True, slots=True)
class LearnableEntities:
    """Entities that lie in their texts, begin and end with no white space, and do not overlap; ascending by row and start.

    overlapping, unusable: how many were left out, because they overlap with a longer one, or because nothing but white
    space, or nothing at all, is where they should be.
    """

    entities: np.ndarray
    overlapping: int
    unusable: int


def select_learnable(texts: Sequence[str], entities: np.ndarray) -> LearnableEntities:
    """Return the entities that can be learned. entities: (entities, 4), with rows of `texts`, in any order."""
    trimmed = np.array([_trim(texts[row], row, *rest) for row, *rest in entities.tolist()], dtype=np.int64)
    trimmed = trimmed.reshape(-1, 4)
    usable = trimmed[trimmed[:, START] < trimmed[:, END]]
    usable = usable[np.lexsort((usable[:, LABEL], usable[:, END], usable[:, START], usable[:, ROW]))]
    is_kept = np.ones(len(usable), dtype=bool)
    for group in _overlapping_groups(usable):
        kept: list[int] = []
        for index in sorted(group, key=lambda i: usable[i, START] - usable[i, END]):  # the longest first
            start, end = usable[index, START], usable[index, END]
            is_kept[index] = not any(start < usable[other, END] and usable[other, START] < end for other in kept)
            if is_kept[index]:
                kept.append(index)
    return LearnableEntities(usable[is_kept], int((~is_kept).sum()), len(entities) - len(usable))


def _trim(text: str, row: int, start: int, end: int, label: int) -> tuple[int, int, int, int]:
    """Return the entity without white space around it, and with an empty span if it does not lie in the text."""
    if not 0 <= start < end <= len(text):
        return row, 0, 0, label
    content = text[start:end]
    start += len(content) - len(content.lstrip())
    return row, start, start + len(content.strip()), label


def _overlapping_groups(entities: np.ndarray) -> list[np.ndarray]:
    """Return the indexes of entities that overlap, directly or by others between them. entities: ascending."""
    if not len(entities):
        return []
    width = int(entities[:, END].max()) + 1  # one axis for all texts, each after the end of the one before
    starts = entities[:, ROW] * width + entities[:, START]
    ends = np.maximum.accumulate(entities[:, ROW] * width + entities[:, END])
    groups = np.split(np.arange(len(entities)), np.flatnonzero(starts[1:] >= ends[:-1]) + 1)
    return [group for group in groups if len(group) > 1]
