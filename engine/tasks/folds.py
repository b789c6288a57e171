"""Folds for cross-fitting: what is applied to a row was fitted on other rows only."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def assign_folds(logits: np.ndarray, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Return the fold of each row, from 0: (rows,) int64. The folds differ by at most one row in size.

    logits: (rows, labels). Each `folds` rows that are neighbours, by their highest label and then by its logit, go to
    different folds in random order, so that all folds have alike rows. The true labels are not used: a row's fold would
    then depend on its own label, and so would what is reported about it.
    """
    rows = len(logits)
    order = np.lexsort((logits.max(axis=1), logits.argmax(axis=1)))
    groups = np.tile(np.arange(folds), (-(-rows // folds), 1))
    fold_of_row = np.empty(rows, dtype=np.int64)
    fold_of_row[order] = np.random.default_rng(seed).permuted(groups, axis=1).ravel()[:rows]
    return fold_of_row
