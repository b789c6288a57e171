"""The rows of a data file that exported files of a language model are compared on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from engine.config import RunConfig
from engine.data.conversation_rows import load_chat_rows

MOST_TRAINING_ROWS = 300


class ComparedRows(NamedTuple):
    """Conversations or preferences as JSON: those that a run held out, and the first ones that it was trained on."""

    held_out: list[str]
    training: list[str]


def read_compared_rows(path: Path, config: RunConfig) -> ComparedRows:
    """Return the test rows, then all evaluation rows, of a data file by a run's settings, and some training rows.

    Raises DataUnreadableError, ColumnMissingError or TooFewRowsError.
    """
    columns = config.data.model_copy(update={"eval_samples": None})
    rows = load_chat_rows(path, columns, config.training.seed, config.task)
    return ComparedRows(
        [*(rows.test.texts if rows.test else ()), *rows.eval.texts], [*rows.train.texts[:MOST_TRAINING_ROWS]]
    )
