"""The rows to store, as they are read from a file or from an earlier version."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from datasets_app.reading.columns import ColumnChoice
from datasets_app.reading.table import INVISIBLE


@dataclass
class Rows:
    """The rows to store (text, label, row, perhaps split and text_pair), and what was left out."""

    frame: pl.DataFrame
    choice: ColumnChoice
    kind: str = "labels"
    rows_read: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # {reason: rows}
    skipped_examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    broken_tags: list[int] = field(default_factory=list)  # see `Table`
    mismatched_tags: int = 0
    mismatched_examples: list[dict[str, Any]] = field(default_factory=list)
    unusable: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # {reason: first conversations left out}

    @property
    def skipped(self) -> int:
        """Rows without text or label."""
        return self.left_out.get("no_text", 0) + self.left_out.get("no_label", 0)


def is_invisible(texts: pl.Series) -> pl.Series:
    """Return whether each text has no character that anybody sees."""
    hidden = ~texts.str.contains("[!-~]")  # nearly all texts hold a character of ASCII, which is found at once
    candidates = hidden.arg_true()
    if candidates.len():
        hidden = hidden.scatter(candidates, ~texts[candidates].str.contains(f"[^{INVISIBLE}]"))
    return hidden
