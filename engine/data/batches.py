"""Group rows of similar length into batches, in an order that seed and epoch fix.

A position in the training is therefore one number, and a resumed run sees the same batches as an unbroken one.
"""

from __future__ import annotations

import math
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
        """Return the row indexes of each step of an epoch.

        Rows are shuffled, then sorted by length within pools of 50 batches, and the batches shuffled again: nearly
        no padding, while a batch's rows and their order stay random.
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
        return shuffled if number else _move_longest_to_second(self.lengths, shuffled)


def _move_longest_to_second(lengths: np.ndarray, batches: list[np.ndarray]) -> list[np.ndarray]:
    """Put the largest batch second, so that a run that does not fit in memory fails within seconds, not after an hour.

    Not first: an ordinary step before it shows that the run moves.
    """
    largest = max(range(len(batches)), key=lambda index: lengths[batches[index]].max() * len(batches[index]))
    others = batches[:largest] + batches[largest + 1 :]
    return [*others[:1], batches[largest], *others[1:]]


def batches_by_length(lengths: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return batches for evaluation: each row once, longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch] for start in range(0, len(order), batch)]
