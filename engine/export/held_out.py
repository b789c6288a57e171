"""The rows of a data file that a language model was not trained on, to compare its exported files on."""

from __future__ import annotations

from pathlib import Path

from engine.config import RunConfig
from engine.data.conversation_rows import load_chat_rows


def held_out_conversations(path: Path, config: RunConfig) -> list[str]:
    """Return the test rows, then all evaluation rows, of a data file by a run's settings: conversations or preferences as JSON.

    Raises DataUnreadableError, ColumnMissingError or TooFewRowsError.
    """
    columns = config.data.model_copy(update={"eval_samples": None})
    rows = load_chat_rows(path, columns, config.training.seed, config.task)
    return [*(rows.test.texts if rows.test else ()), *rows.eval.texts]
