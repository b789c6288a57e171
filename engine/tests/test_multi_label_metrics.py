"""Metrics of answers with any number of labels are scikit-learn's and torch's; thresholds are the best there are."""

import json
import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, precision_score, recall_score

from engine.data.labelled_rows import Split
from engine.tasks.folds import assign_folds
from engine.tasks.multi_label_metrics import (
    FEWEST_POSITIVES,
    LEAST_LIFT,
    choose_thresholds,
    cross_fit_thresholds,
    multi_label_metrics,
    worst_rows,
)

SCORES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


def sample(rows: int, labels: int, seed: int = 0, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits that say something about the truth, with many equal ones; label 0 is never true."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, labels)) < np.linspace(0, 0.6, labels)
    logits = rng.normal(size=(rows, labels)) + 1.5 * truth - 0.5
    return logits.round(digits).astype(np.float32), truth


def metrics_for(logits: np.ndarray, truth: np.ndarray, threshold: float = 0.5):
    labels = truth.shape[1]
    metrics = multi_label_metrics(
        logits, truth, [f"label {index}" for index in range(labels)], np.full(labels, threshold)
    )
    json.dumps(metrics, allow_nan=False)
    return metrics


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(rows, seed):
    logits, truth = sample(rows, 7, seed)
    predicted = expit(logits.astype(np.float64)) >= 0.3
    present = np.flatnonzero(predicted.any(axis=0) | truth.any(axis=0))
    metrics = metrics_for(logits, truth, 0.3)
    for name, score in SCORES.items():
        micro = score(truth, predicted, average="micro", zero_division=0)
        macro = score(truth, predicted, average="macro", zero_division=0, labels=present)
        each = score(truth, predicted, average=None, zero_division=0)
        assert metrics[f"micro_{name}"] == pytest.approx(micro, abs=1e-12)
        assert metrics[f"macro_{name}"] == pytest.approx(macro, abs=1e-12)
        assert [label[name] for label in metrics["per_label"].values()] == pytest.approx(list(each), abs=1e-12)
    assert metrics["hamming_loss"] == pytest.approx(hamming_loss(truth, predicted))
    assert metrics["subset_accuracy"] == pytest.approx((truth == predicted).all(axis=1).mean())
    assert [label["support"] for label in metrics["per_label"].values()] == truth.sum(axis=0).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn_and_none_without_a_row(seed):
    logits, truth = sample(150, 6, seed)
    metrics = metrics_for(logits, truth)
    values = [label["average_precision"] for label in metrics["per_label"].values()]
    expected = [average_precision_score(truth[:, label], logits[:, label]) for label in range(1, 6)]
    assert values[0] is None and metrics["labels_without_rows"] == ["label 0"]
    assert values[1:] == pytest.approx(expected, abs=1e-12)
    assert metrics["macro_average_precision"] == pytest.approx(np.mean(expected))


def test_loss_is_that_of_torch_also_for_huge_logits():
    logits, truth = sample(100, 4)
    logits[0] = [80, -80, 800, -800]
    expected = torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), torch.tensor(truth, dtype=torch.float32))
    assert metrics_for(logits, truth)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_rows_without_any_label_give_zeros_and_not_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = metrics_for(np.full((5, 3), -4.0), np.zeros((5, 3), dtype=bool))
    assert (metrics["micro_f1"], metrics["macro_f1"], metrics["subset_accuracy"]) == (0, 0, 1)
    assert metrics["macro_average_precision"] is None


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(4))
def test_no_useful_threshold_has_a_better_f1_than_the_chosen_one(seed):
    logits, truth = sample(60, 5, seed)
    probabilities = expit(logits)
    thresholds = choose_thresholds(probabilities, truth)
    for label in range(5):
        scores, own = probabilities[:, label], truth[:, label]
        cuts = [cut for cut in np.unique(scores) if own[scores >= cut].mean() >= min(0.5, LEAST_LIFT * own.mean())]
        best = max((f1_score(own, scores >= cut, zero_division=0) for cut in cuts), default=0)
        if own.sum() >= FEWEST_POSITIVES:
            assert f1_score(own, scores >= thresholds[label], zero_division=0) == pytest.approx(best, abs=1e-12)
        else:
            assert thresholds[label] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_label_that_was_not_learned_is_given_to_few_rows(seed):
    # The best F1 has a cut that gives it to 80 to 100 % of these rows.
    rng = np.random.default_rng(seed)
    probabilities, truth = expit(rng.normal(-1.4, 0.5, (2000, 1))), rng.random((2000, 1)) < 0.2
    assert (probabilities >= choose_thresholds(probabilities, truth)).mean() < 0.1


def test_threshold_lies_in_the_middle_of_the_gap_and_nearest_to_a_half_among_equals():
    positives, negatives = np.full(12, 0.9), np.full(12, 0.2)
    scores = np.concatenate([positives, negatives])[:, None]
    truth = np.arange(24)[:, None] < 12
    assert choose_thresholds(scores, truth) == pytest.approx([0.55])
    # Taking 10 of 20 true rows and no other, or all 20 and 20 others, both have an F1 of 2/3.
    scores, truth = np.repeat([0.6, 0.1, 0.1], [10, 10, 20]), np.repeat([True, True, False], [10, 10, 20])
    assert choose_thresholds(scores[:, None], truth[:, None]) == pytest.approx([0.35])


def test_equal_and_neighbouring_probabilities_are_decided_as_they_were_compared():
    truth = np.arange(30)[:, None] < 15
    assert choose_thresholds(np.full((30, 1), 0.7), truth)[0] <= 0.7
    assert choose_thresholds(np.zeros((30, 1)), truth)[0] == 0
    upper = 0.3
    scores = np.where(truth, upper, np.nextafter(upper, 0))
    assert ((scores >= choose_thresholds(scores, truth)) == truth).all()


def test_threshold_of_a_row_does_not_depend_on_its_own_labels():
    logits, truth = sample(80, 4)
    probabilities, folds = expit(logits), assign_folds(logits)
    before = cross_fit_thresholds(probabilities, truth, folds)
    for row in range(10):
        changed = truth.copy()
        changed[row] = ~changed[row]
        assert (cross_fit_thresholds(probabilities, changed, folds)[row] == before[row]).all()


def test_thresholds_of_a_fold_are_those_chosen_on_the_others():
    logits, truth = sample(100, 4)
    probabilities, folds = expit(logits), assign_folds(logits)
    thresholds = cross_fit_thresholds(probabilities, truth, folds)
    for fold in range(5):
        expected = choose_thresholds(probabilities[folds != fold], truth[folds != fold])
        assert (thresholds[folds == fold] == expected).all()


def test_worst_rows_name_true_and_predicted_labels_with_their_probabilities():
    logits = np.array([[4.0, -4.0, -4.0], [-6.0, 3.0, -4.0]])
    truth = np.array([[True, False, False], [True, False, False]])
    first, second = worst_rows(logits, Split(["good", "bad"], truth), ["a", "b", "c"], np.full(3, 0.5))
    assert first["text"] == "bad" and first["labels"] == ["a"] and first["predicted"] == ["b"]
    assert first["probabilities"] == pytest.approx({"a": expit(-6), "b": expit(3)})
    assert second["text"] == "good" and first["loss"] > second["loss"] > 0
