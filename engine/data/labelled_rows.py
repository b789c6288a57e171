"""The rows of a run: texts and what is to be learned about them, in splits. Needs no library that reads data files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

from engine.sentences import Sentence, gettext_noop, join

# Names of splits, in lower case, as people and the model hub write them.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "evaluation": "eval",
    "validation": "eval",
    "valid": "eval",
    "val": "eval",
    "dev": "eval",
    "test": "test",
    "testing": "test",
}
# Why a row takes part in no split, and how logs say it.
SKIP_REASONS = {
    "no_text": gettext_noop("without text"),
    "no_label": gettext_noop("without a label"),
    "not_a_number": gettext_noop("whose label is no number"),
    "not_a_list": gettext_noop("whose label is no list of labels"),
    "no_spans": gettext_noop("whose label is no list of spans"),
    "no_messages": gettext_noop("that are no list of messages with text"),
    "unknown_role": gettext_noop("with a message of an unknown role"),
    "no_answer": gettext_noop("without an answer of the assistant"),
    "no_prompt": gettext_noop("without a prompt"),
    "same_answers": gettext_noop("whose chosen and rejected answers are the same"),
    "broken_tool_call": gettext_noop("with a tool call that is no name with arguments in JSON"),
    "template_refused": gettext_noop("that the chat template refuses"),
    "special_token": gettext_noop("with a special token of the base model in a message"),
    "over_long": gettext_noop("that are longer than data.max_length"),
    "unknown_split": gettext_noop("with an unknown split name"),
    "between_splits": gettext_noop("too similar to rows of two splits"),
}


@dataclass(frozen=True, slots=True)
class Split:
    """Texts and what is to be learned about them, row by row.

    labels: sequence_classification: (rows,) int64, the index of each row's label.
        multi_label_classification: (rows, labels) bool, whether a row has a label.
        regression: (rows,) float64, the scores.
        token_classification: (entities, 4) int64, each entity's row, start, end (in code points) and index of its label.
        causal_lm: (0,) int64, as there are none; the texts are conversations as JSON (engine.data.conversations).
        preference: the same; the texts are preferences as JSON (engine.data.preferences).
    text_pairs: the second text of each row, where a row is a pair of texts.
    """

    texts: list[str]
    labels: np.ndarray
    text_pairs: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run: label names in the order of their indexes (none for scores), the splits, and what was left out.

    skipped_by_reason: rows by the keys of SKIP_REASONS, only those that occur. rare: labels with fewer than two
    training rows. held_out_share: of the rows that were divided into training and evaluation by our rule; None if the data name theirs.
    """

    labels: list[str]
    train: Split
    eval: Split
    test: Split | None = None
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    rare: list[str] = field(default_factory=list)
    held_out_share: float | None = None

    def digest(self) -> str:
        """Return the hash of all texts and labels in their splits and order."""
        content = hashlib.sha256(repr(self.labels).encode())
        for split in (self.train, self.eval, self.test):
            if split is None:
                continue
            content.update(f"{len(split)} rows:".encode())
            content.update(split.labels.tobytes())
            for text in [*split.texts, *(split.text_pairs or ())]:
                content.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return content.hexdigest()

    @property
    def skipped(self) -> int:
        """Return the number of rows that are left out, for whatever reason."""
        return sum(self.skipped_by_reason.values())


def sort_labels(labels: list[str]) -> list[str]:
    """Return the labels in the order of their numbers where all are numbers, so that 10 comes after 9; else by letters."""
    try:
        numbers = {label: Decimal(label) for label in labels}
    except InvalidOperation:
        return sorted(labels)
    if not all(number.is_finite() for number in numbers.values()):
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))


def were_sorted_alike(labels: list[str]) -> bool:
    """Return whether releases without `sort_labels` gave the labels this order too. They knew whole numbers only."""
    are_whole = all(label.removeprefix("-").isdecimal() for label in labels)
    return labels == sorted(labels, key=int if are_whole else str)


def find_similar_labels(labels: list[str]) -> list[list[str]]:
    """Return the groups of labels that differ only in blanks or case, such as "yes" and "Yes "."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.casefold().split()), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def explain_skipped(skipped_by_reason: dict[str, int]) -> str:
    """Return the reasons as a phrase, such as "2 without text, 1 with an unknown split name"; empty without any."""
    return join(
        Sentence(gettext_noop("{count} {reason}"), count=count, reason=Sentence(SKIP_REASONS[reason]))
        for reason, count in skipped_by_reason.items()
    )
