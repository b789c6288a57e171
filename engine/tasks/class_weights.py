"""Weights of labels in the loss, by the names that the configuration gives them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np

from engine.errors import ConfigError, Problem
from engine.sentences import Sentence, gettext_noop

FIELD = "training.class_weights"
MOST_SHOWN = 10  # labels in a message


def label_weights(setting: str | Mapping[str, float], labels: list[str], counts: np.ndarray) -> np.ndarray | None:
    """Return the weight of each label in the loss by training.class_weights: (labels,) float32; None if all are 1.

    counts: how often each label occurs in the training rows, (labels,). balanced gives all labels the same weight together.

    Raises ConfigError as `weights_by_label`.
    """
    if isinstance(setting, str):
        if setting == "none":
            return None
        counts = counts.clip(1)
        return (counts.sum() / (len(counts) * counts)).astype(np.float32)
    return np.array(weights_by_label(setting, labels), dtype=np.float32)


def weights_by_label(setting: Mapping[str, float], labels: list[str]) -> list[float]:
    """Return the weight of each label, 1 where the setting does not name it.

    Raises ConfigError for names that the data do not have, and if all weights are 0.
    """
    problems = [
        Problem(
            FIELD,
            Sentence(
                gettext_noop("{field}: the data have no label {name!r}. {hint}"),
                field=FIELD,
                name=name,
                hint=_hint(name, labels),
            ),
            "unknown_label",
        )
        for name in setting
        if name not in labels
    ]
    weights = [setting.get(label, 1.0) for label in labels]
    if not problems and not any(weights):
        message = Sentence(
            gettext_noop(
                "{field}: all weights are 0, so there is nothing to learn. Give at least one label a weight above 0."
            ),
            field=FIELD,
        )
        problems.append(Problem(FIELD, message, "all_zero"))
    if problems:
        raise ConfigError(problems)
    return weights


def _hint(name: str, labels: list[str]) -> str:
    # Names are compared without case: difflib finds nothing in common between GOOD and good.
    label_of_folded = {label.casefold(): label for label in reversed(labels)}
    similar = difflib.get_close_matches(name.casefold(), label_of_folded, n=1)
    if similar:
        return Sentence(gettext_noop("Did you mean {label!r}?"), label=label_of_folded[similar[0]])
    rest = len(labels) - MOST_SHOWN
    return Sentence(
        gettext_noop("Labels: {labels}{more}."),
        labels=", ".join(labels[:MOST_SHOWN]),
        more=Sentence(gettext_noop(" and {count} more"), count=rest) if rest > 0 else "",
    )
