"""What a cut through rows that are sorted by a score leaves above it."""

from __future__ import annotations

import numpy as np


def count_above_cuts(ranked: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each distinct score, highest first: the score, the rows at or above it, and the true ones of these.

    ranked: (rows,) scores in descending order, at least one. truth: (rows,) bool of the same rows. The results have one
    number per distinct score, because no cut separates rows of the same score.
    """
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return ranked[ends], ends + 1, truth.cumsum()[ends]
