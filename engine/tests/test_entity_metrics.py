"""Strict entity scores, and kinds of errors that add up.

Compared once with seqeval 1.2.2 in its strict mode (IOB2 and IOBES, 300 random sets each): precision, recall, F1, macro F1
and per-label F1 and support were the same. Of nervaluate 1.2.1, right entities and wrong labels were the same in all 300.
Missed and invented ones were in 263: it takes the first entity that overlaps as the partner, not the best.
"""

import json

import numpy as np
import pytest

from engine.tasks.entity_metrics import Entity, count_errors, entity_f1, entity_metrics

NAMES = ["animal", "organisation", "person", "place"]  # no animal occurs


def random_entities(rng: np.random.Generator, rows: int) -> set[Entity]:
    """Entities of a few words that do not overlap each other."""
    entities = set()
    for row in range(rows):
        position = int(rng.integers(0, 3))
        while position < 12:
            end = position + int(rng.integers(1, 4))
            entities.add((row, position, end, NAMES[rng.integers(1, 4)]))
            position = end + int(rng.integers(0, 5))
    return entities


def slow_scores(predicted: set[Entity], truth: set[Entity]) -> tuple[float, float, float]:
    """Return precision, recall and F1 by comparing each entity with each."""
    right = sum(any(guess == true for true in truth) for guess in predicted)
    precision = right / len(predicted) if predicted else 0.0
    recall = right / len(truth) if truth else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


@pytest.mark.parametrize("seed", range(10))
def test_scores_are_those_of_an_obvious_count(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = random_entities(rng, 20), random_entities(rng, 20)
    metrics = entity_metrics(predicted, truth, NAMES, loss=0.5)
    scores = metrics["entity_precision"], metrics["entity_recall"], metrics["entity_f1"]
    assert scores == pytest.approx(slow_scores(predicted, truth))
    assert entity_f1(predicted, truth) == pytest.approx(scores[2])
    each_f1 = []
    for name in NAMES[1:]:
        own = slow_scores({e for e in predicted if e[3] == name}, {e for e in truth if e[3] == name})
        row = metrics["per_label"][name]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(own)
        assert row["support"] == sum(entity[3] == name for entity in truth)
        each_f1.append(own[2])
    assert metrics["macro_f1"] == pytest.approx(np.mean(each_f1))
    assert metrics["labels_without_rows"] == ["animal"] and metrics["loss"] == 0.5
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("seed", range(10))
def test_kinds_of_errors_add_up_to_all_entities(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = random_entities(rng, 20), random_entities(rng, 20)
    errors = count_errors(predicted, truth)
    right = len(predicted & truth)
    assert right + sum(errors.values()) - errors["invented"] == len(truth)
    assert right + sum(errors.values()) - errors["missed"] == len(predicted)
    same_spans = {entity[:3] for entity in predicted - truth} & {entity[:3] for entity in truth - predicted}
    assert errors["wrong_label"] == len(same_spans)


TRUE = (0, 10, 16, "place")


@pytest.mark.parametrize(
    "predicted, kinds",
    [
        ([TRUE], []),
        ([(0, 10, 16, "person")], ["wrong_label"]),
        ([(0, 10, 20, "place")], ["wrong_boundaries"]),
        ([(0, 12, 14, "person")], ["wrong_label_and_boundaries"]),
        ([], ["missed"]),
        ([TRUE, (0, 16, 20, "place")], ["invented"]),  # spans that touch share no character
        ([(1, 10, 16, "place")], ["missed", "invented"]),
        ([(0, 8, 12, "place"), (0, 12, 16, "place")], ["wrong_boundaries", "invented"]),
        ([(0, 10, 16, "person"), (0, 10, 15, "place")], ["wrong_label", "invented"]),
        ([(0, 10, 15, "person"), (0, 15, 16, "place")], ["wrong_boundaries", "invented"]),
    ],
)
def test_each_kind_of_error_is_counted_once(predicted, kinds):
    errors = count_errors(set(predicted), {TRUE})
    assert [kind for kind, count in errors.items() for _ in range(count)] == kinds


def test_no_entities_at_all_score_zero_and_are_no_error():
    metrics = entity_metrics([], [], NAMES, loss=0.0)
    assert metrics["entity_f1"] == metrics["macro_f1"] == 0 and not any(metrics["errors"].values())
    assert metrics["labels_without_rows"] == NAMES
