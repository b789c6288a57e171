"""Temperatures repair over-confidence, leave good probabilities alone, and are never fitted on what they are judged by."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from engine.tasks import calibration
from engine.tasks.calibration import (
    confident_from,
    coverage_accuracy,
    cross_fit,
    cross_fit_multi_label,
    expected_calibration_error,
    fit_label_temperatures,
    fit_temperature,
    multi_label_calibration,
    reliability,
    softmax_calibration,
)
from engine.tasks.folds import assign_folds


def softmax_sample(rows: int, labels: int = 4, factor: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are right when divided by `factor`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * 2
    labels_drawn = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return (logits * factor).astype(np.float32), labels_drawn


def sigmoid_sample(rows: int, factors: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are right when each label's are divided by its factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, len(factors))) * 2 - 1
    return (logits * factors).astype(np.float32), rng.random(logits.shape) < expit(logits)


def test_temperature_has_the_lowest_cross_entropy(monkeypatch):
    monkeypatch.setattr(calibration, "PRIOR_WEIGHT", 0.0)
    logits, labels = softmax_sample(500, factor=3)
    logits = logits.astype(np.float64)

    def cross_entropy(temperature: float) -> float:
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), labels].mean()

    expected = minimize_scalar(cross_entropy, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [0.1, 0.5, 1, 3, 12])
def test_temperature_is_the_factor_by_which_logits_are_too_large(factor):
    logits, labels = softmax_sample(20_000, factor=factor)
    assert fit_temperature(logits, labels) == pytest.approx(factor, rel=0.03)


def test_temperature_of_too_many_logits_is_fitted_on_some_of_all_rows(monkeypatch):
    monkeypatch.setattr(calibration, "MOST_FITTED", 8000)
    one, many = softmax_sample(20_000, factor=3), sigmoid_sample(20_000, [3, 3])
    assert fit_temperature(*one) == fit_temperature(one[0][::11], one[1][::11])
    assert fit_label_temperatures(*many) == pytest.approx([3, 3], rel=0.15)


@pytest.mark.parametrize("factor, expected", [(1000, 20), (0.01, 0.05)])
def test_temperature_stays_within_its_bounds(factor, expected):
    assert fit_temperature(*softmax_sample(5000, factor=factor)) == pytest.approx(expected)


def test_few_rows_that_are_all_right_do_not_make_answers_certain():
    logits = np.tile([2.0, 0.0], (5, 1))
    assert 0.7 < fit_temperature(logits, np.zeros(5, dtype=int)) < 1
    assert fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int)) == 1


def test_calibration_lowers_the_error_of_overconfident_logits():
    part = softmax_calibration(*softmax_sample(4000, factor=4))
    assert part["temperature"] == pytest.approx(4, rel=0.1)
    assert part["ece_before"] > 0.15 and part["ece_after"] < 0.03


def test_calibration_leaves_calibrated_logits_alone():
    logits, labels = softmax_sample(4000)
    part = softmax_calibration(logits, labels)
    assert part["temperature"] == pytest.approx(1, rel=0.06)
    assert part["ece_after"] < part["ece_before"] + 0.005


def test_probabilities_of_a_row_do_not_depend_on_its_own_label():
    logits, labels = softmax_sample(60)
    many_logits, many_labels = sigmoid_sample(60, [1, 3, 2])
    before, many_before = cross_fit(logits, labels), cross_fit_multi_label(many_logits, many_labels)
    for row in range(10):
        changed, many_changed = labels.copy(), many_labels.copy()
        changed[row] = (changed[row] + 1) % 4
        many_changed[row] = ~many_changed[row]
        assert (cross_fit(logits, changed)[row] == before[row]).all()
        assert (cross_fit_multi_label(many_logits, many_changed)[row] == many_before[row]).all()
    assert (cross_fit(logits, labels) == before).all()


def test_folds_are_of_one_size_and_have_alike_rows():
    logits, _ = softmax_sample(203)
    folds = assign_folds(logits)
    assert sorted(np.bincount(folds)) == [40, 40, 41, 41, 41]
    predicted = logits.argmax(axis=1)
    for label in range(4):
        counts = np.bincount(folds[predicted == label], minlength=5)
        assert counts.max() - counts.min() <= 2
    assert (folds == assign_folds(logits)).all() and (folds != assign_folds(logits, seed=1)).any()


def test_each_label_gets_its_own_temperature():
    factors = [0.5, 1, 4]
    logits, labels = sigmoid_sample(20_000, factors)
    assert fit_label_temperatures(logits, labels) == pytest.approx(factors, rel=0.06)
    part = multi_label_calibration(logits, labels)
    assert part["ece_after"] < 0.01 < part["ece_before"]


def test_rare_labels_get_the_temperature_of_all():
    logits, labels = sigmoid_sample(3000, [3, 3, 3, 3])
    labels[:, 2], labels[:, 3] = False, True
    labels[:4, 2], labels[:4, 3] = True, False
    temperatures = fit_label_temperatures(logits, labels)
    assert temperatures[2] == temperatures[3] != temperatures[0]
    assert fit_label_temperatures(logits[:0], labels[:0]) == pytest.approx([1, 1, 1, 1])


def test_expected_calibration_error_is_that_of_the_paper():
    # As in the authors' code, gpleiss/temperature_scaling: bins are open below and closed above.
    logits, labels = softmax_sample(500, factor=2)
    confidence = torch.softmax(torch.tensor(logits, dtype=torch.float64), 1).max(1).values
    correct = torch.tensor(logits).argmax(1) == torch.tensor(labels)
    edges = torch.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].double().mean()
            expected += float(gap.abs() * inside.double().mean())
    assert expected_calibration_error(confidence.numpy(), correct.numpy()) == pytest.approx(expected)
    assert expected_calibration_error(np.empty(0), np.empty(0, dtype=bool)) == 0


def test_bins_of_a_diagram_hold_every_row_once():
    confidence = np.array([0.0, 0.2, 0.2000001, 1.0])
    bins = reliability(confidence, np.array([False, True, True, True]), bins=5)
    assert [(part["low"], part["high"], part["rows"]) for part in bins] == [
        (0.0, 0.2, 2), (0.2, 0.4, 1), (0.4, 0.6, 0), (0.6, 0.8, 0), (0.8, 1.0, 1),
    ]  # fmt: skip
    assert bins[0]["confidence"] == pytest.approx(0.1) and bins[0]["accuracy"] == 0.5
    assert bins[2]["confidence"] is None and bins[2]["accuracy"] is None


def test_curve_goes_from_few_answers_to_all_of_them():
    logits, labels = softmax_sample(1234)
    confidence = softmax(logits, axis=1).max(axis=1).astype(np.float64)
    correct = logits.argmax(axis=1) == labels
    curve = coverage_accuracy(confidence, correct)
    assert len(curve) == 100 and curve[-1]["coverage"] == 1
    assert curve[-1]["accuracy"] == pytest.approx(correct.mean())
    for point in curve:
        covered = confidence >= point["threshold"]
        assert covered.mean() == pytest.approx(point["coverage"])
        assert correct[covered].mean() == pytest.approx(point["accuracy"])


def test_rows_of_one_confidence_are_one_point():
    assert coverage_accuracy(np.full(7, 0.6), np.arange(7) < 3) == [
        {"coverage": 1.0, "accuracy": pytest.approx(3 / 7), "threshold": 0.6}
    ]


def test_confident_answers_are_right_in_nine_of_ten_rows():
    logits, labels = softmax_sample(5000)
    confidence, correct = softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) == labels
    assert 0.6 < correct.mean() < 0.85
    threshold = confident_from(confidence, correct)
    assert correct[confidence >= threshold].mean() == pytest.approx(0.9, abs=0.005)
    below = np.unique(confidence[confidence < threshold])[-200]
    assert correct[confidence >= below].mean() < 0.9


def test_few_lucky_rows_do_not_make_answers_confident():
    confidence = np.linspace(0.99, 0.3, 500)
    correct = np.random.default_rng(0).random(500) < 0.6
    correct[:10] = True
    assert confident_from(confidence, correct) is None
    assert confident_from(confidence, np.ones(500, dtype=bool)) == pytest.approx(0.3)
    assert confident_from(np.empty(0), np.empty(0, dtype=bool)) is None


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_few_rows_give_valid_json(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = softmax_calibration(*softmax_sample(rows))
        many = multi_label_calibration(*sigmoid_sample(rows, [1, 2]))
        same = softmax_calibration(np.zeros((rows, 3)), np.zeros(rows, dtype=int))
    json.dumps([one, many, same], allow_nan=False)
    assert one["rows"] == many["rows"] == rows and len(many["temperature"]) == 2


def test_huge_logits_are_calibrated_without_overflow():
    logits, labels = softmax_sample(300, factor=1e4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert softmax_calibration(logits, labels)["temperature"] == pytest.approx(20)
