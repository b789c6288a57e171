"""Probabilities of entities: a temperature that makes them true, reported on texts that it was not fitted on."""

import numpy as np
import pytest
from scipy.special import softmax

from engine.data.entity_tags import find_entities
from engine.data.entity_windows import Windows
from engine.tasks.entity_calibration import compare_entities, entity_calibration

TEXTS, TAGS = 2000, 5
EMPTY = np.empty((0, 4), np.int64)


def texts_of_three_tokens() -> Windows:
    """Return windows of texts with three tokens of one character each."""
    counted = 3 * TEXTS
    starts = np.arange(0, counted + 1, 3)
    places = np.tile(np.arange(3), TEXTS)
    return Windows(
        ids=np.zeros(counted, dtype=np.int32),
        offsets=starts,
        truncated=0,
        rows=np.arange(TEXTS),
        counted=np.arange(counted),
        spans=np.stack([places, places + 1], axis=1),
        text_starts=starts,
    )


def one_entity_per_text(sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are `sharpness` times what they should be, and the true entities: (tokens, tags), (entities, 4).

    The middle token of each text is an entity of one of two labels, drawn from the model's own true probabilities.
    """
    random = np.random.default_rng(3)
    logits = np.tile(20.0 * np.eye(TAGS)[0], (3 * TEXTS, 1))
    doubt = random.normal(0, 1.5, TEXTS)
    logits[1::3] = -40.0
    logits[1::3, 1], logits[1::3, 3] = doubt / 2, -doubt / 2
    is_first = random.random(TEXTS) < softmax(logits[1::3], axis=1)[:, 1]
    ones = np.ones(TEXTS, np.int64)
    true = np.stack([np.arange(TEXTS), ones, 2 * ones, np.where(is_first, 0, 1)], axis=1)
    return logits * sharpness, true


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_makes_a_model_too_sure_or_too_doubtful(sharpness):
    windows = texts_of_three_tokens()
    logits, true = one_entity_per_text(sharpness)
    calibration = entity_calibration(logits, windows, find_entities(logits, windows), true)
    assert calibration["temperature"] == pytest.approx(sharpness, rel=0.1)
    assert calibration["ece_after"] < 0.04 and calibration["entities"] == calibration["rows"] == TEXTS
    if sharpness != 1:
        assert calibration["ece_before"] > 2 * calibration["ece_after"]
    assert calibration["coverage"][0]["accuracy"] > 0.9 > calibration["coverage"][-1]["accuracy"]


def test_temperature_changes_probabilities_and_no_entity():
    windows = texts_of_three_tokens()
    logits = np.random.default_rng(1).normal(0, 2, (3 * TEXTS, TAGS))
    sharp, even = find_entities(logits, windows), find_entities(logits, windows, 5.0)
    assert np.array_equal(sharp.entities, even.entities) and len(sharp.entities) > TEXTS
    assert sharp.probabilities.mean() > even.probabilities.mean()
    assert sharp.certainties.shape == (TEXTS,) and (sharp.certainties <= 1).all()


def test_text_is_as_certain_as_its_least_certain_token():
    windows = texts_of_three_tokens()
    logits = np.tile(np.log([0.6, 0.1, 0.1, 0.1, 0.1]), (3 * TEXTS, 1))
    logits[4] = np.log([0.1, 0.3, 0.2, 0.3, 0.1])  # the middle one of the second text: label 0 with 0.5
    decoded = find_entities(logits, windows)
    assert decoded.entities.tolist() == [[1, 1, 2, 0]] and decoded.probabilities == pytest.approx([0.5])
    assert decoded.certainties[:3] == pytest.approx([0.6, 0.5, 0.6])


def test_answer_is_right_if_no_entity_is_wrong_and_none_missing():
    predicted = np.array([[0, 0, 1, 0], [0, 1, 2, 0], [1, 0, 1, 0], [2, 0, 1, 1]])
    true = np.array([[0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 2, 0], [2, 0, 1, 0]])
    is_right, text_is_right = compare_entities(predicted, true, 4)
    assert is_right.tolist() == [True, False, True, False]
    assert text_is_right.tolist() == [False, False, False, True]
    assert compare_entities(EMPTY, EMPTY, 2)[1].tolist() == [True, True]


def test_model_that_finds_nothing_has_nothing_to_calibrate():
    windows = texts_of_three_tokens()
    logits = np.tile(np.eye(TAGS)[0], (3 * TEXTS, 1))
    assert entity_calibration(logits, windows, find_entities(logits, windows), one_entity_per_text(1)[1]) == {}


def test_few_entities_change_little():
    windows = texts_of_three_tokens()
    logits, true = one_entity_per_text(3.0)
    logits[3 * 5 :] = 20.0 * np.eye(TAGS)[0]  # only five texts have any
    calibration = entity_calibration(logits, windows, find_entities(logits, windows), true)
    assert calibration["entities"] == 5 and 0.7 < calibration["temperature"] < 2
