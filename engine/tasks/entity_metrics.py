"""Strict scores of entities, and what kinds of errors were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from engine.tasks.label_scores import LabelCounts

# Row, start and end of the span in its text (the end is exclusive), name of the label.
Entity: TypeAlias = "tuple[int, int, int, str]"
# Index in KINDS_OF_PAIRS, minus the characters that they share, true and predicted entity: sorted, the best come first.
Pair: TypeAlias = "tuple[int, int, Entity, Entity]"
KINDS_OF_PAIRS = ["wrong_label", "wrong_boundaries", "wrong_label_and_boundaries"]


def entity_metrics(
    predicted: Iterable[Entity], truth: Iterable[Entity], names: list[str], loss: float
) -> dict[str, Any]:
    """Return the part `eval` of metrics.json.

    predicted, truth: the entities of all rows; the same one twice counts once. names: all labels. loss: the mean loss.

    A predicted entity is right if row, start, end and label are those of a true one. Precision, recall and F1 are over all
    entities; `macro_f1` is the mean over the labels that are true or predicted. All are 0 where there is nothing to divide
    by. They equal seqeval's in its strict mode. `errors` is explained at `count_errors`.
    """
    guesses, true = set(predicted), set(truth)
    counts = LabelCounts(*(_count_by_label(entities, names) for entities in (guesses & true, guesses, true)))
    micro = counts.micro_scores()
    return {
        "entity_precision": micro["precision"],
        "entity_recall": micro["recall"],
        "entity_f1": micro["f1"],
        "macro_f1": counts.macro_scores()["f1"],
        "loss": loss,
        "per_label": counts.per_label(names),
        "labels_without_rows": counts.without_rows(names),
        "errors": count_errors(guesses, true),
    }


def entity_f1(predicted: Iterable[Entity], truth: Iterable[Entity]) -> float:
    """Return the strict F1 over all entities; 0 without any."""
    guesses, true = set(predicted), set(truth)
    return 2 * len(guesses & true) / max(1, len(guesses) + len(true))


def count_errors(predicted: set[Entity], truth: set[Entity]) -> dict[str, int]:
    """Return how many errors there are of each kind, which are those of SemEval 2013, task 9.1, and nervaluate.

    `wrong_label`: the span is right. `wrong_boundaries`: the label is right, and the spans overlap.
    `wrong_label_and_boundaries`: the spans overlap. `missed`: a true entity without, `invented`: a predicted one without
    such a partner. Each entity has at most one partner: the best kind comes first, then the longest overlap. So right
    answers and the first four add up to the true entities, and right answers and all but `missed` to the predicted ones.
    """
    missed, invented = truth - predicted, predicted - truth
    counts = dict.fromkeys(KINDS_OF_PAIRS, 0)
    for kind, _, true, guess in sorted(_overlapping_pairs(missed, invented)):
        if true in missed and guess in invented:
            missed.remove(true)
            invented.remove(guess)
            counts[KINDS_OF_PAIRS[kind]] += 1
    return {**counts, "missed": len(missed), "invented": len(invented)}


def _count_by_label(entities: set[Entity], names: list[str]) -> np.ndarray:
    counts = Counter(label for *_, label in entities)
    return np.array([counts[name] for name in names], dtype=np.int64)


def _overlapping_pairs(missed: set[Entity], invented: set[Entity]) -> Iterator[Pair]:
    """Yield the pairs of a missed and an invented entity of the same row that share a character.

    Entities are visited in the order of their starts. Each is compared with those of the other set that have not ended.
    """
    entities = sorted([(*entity, 0) for entity in missed] + [(*entity, 1) for entity in invented])
    not_ended: list[list[Entity]] = [[], []]  # of each set; ended ones are removed when the list is read next
    for row, start, end, label, own_set in entities:
        entity = (row, start, end, label)
        others = [other for other in not_ended[1 - own_set] if other[2] > start and other[0] == row]
        for other in others:
            yield _make_pair(entity, other) if own_set == 0 else _make_pair(other, entity)
        not_ended[1 - own_set] = others
        not_ended[own_set].append(entity)


def _make_pair(true: Entity, guess: Entity) -> Pair:
    kind = 1 if true[3] == guess[3] else 2
    if true[1:3] == guess[1:3]:
        kind = 0
    return kind, max(true[1], guess[1]) - min(true[2], guess[2]), true, guess
