"""Group rows of similar length into batches, in an order that seed and epoch fix.

A position in the training is therefore one number, and a resumed run sees the same batches as an unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

POOL_BATCHES = 50


def total_steps(epochs: float, max_steps: int | None, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of a run; max_steps overrides the epochs."""
    return max_steps or max(1, round(epochs * steps_per_epoch))


@dataclass(frozen=True, slots=True)
class BatchSchedule:
    """All training batches of a run.

    lengths: (rows,) tokens of each training row. batch: rows per optimizer step.
    """

    lengths: np.ndarray
    batch: int
    epochs: float
    max_steps: int | None
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps in one pass over the rows."""
        return math.ceil(len(self.lengths) / self.batch)

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return total_steps(self.epochs, self.max_steps, self.steps_per_epoch)

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return the row indexes of each step of an epoch, each (rows of the step,).

        Rows are shuffled, then sorted by length within pools of 50 batches, and the batches shuffled again: nearly
        no padding, while a batch's rows and their order stay random. In the first epoch, the largest batch is moved to
        the second step, so that a run that does not fit in memory fails within seconds, not after an hour.
        """
        generator = np.random.default_rng([self.seed, number])
        order = generator.permutation(len(self.lengths))
        pool = self.batch * POOL_BATCHES
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]
        shuffled = [batches[index] for index in generator.permutation(len(batches))]
        if number > 0:
            return shuffled
        sizes = [self.lengths[rows].max() * len(rows) for rows in shuffled]
        largest = shuffled.pop(sizes.index(max(sizes)))
        # Not first: an ordinary step before it shows that the run moves.
        shuffled.insert(1, largest)
        return shuffled


def batches_by_length(lengths: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return the row indexes of batches for evaluation, `batch` rows at a time.

    lengths: (rows,) tokens. Each row comes once, longest first, so that memory runs out at once or never.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def batches_by_tokens(lengths: np.ndarray, budget: int, most_rows: int) -> Iterator[np.ndarray]:
    """Yield the row indexes of batches of about `budget` tokens with padding, and of at most `most_rows` rows.

    lengths: (rows,) tokens. Each row comes once, longest first, so that memory runs out at once or never.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        # The first row of a batch is its longest, to which the others are padded.
        size = max(1, min(most_rows, budget // int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
