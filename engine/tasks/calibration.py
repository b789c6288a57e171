"""Temperatures that make probabilities mean what they say, and how well probabilities do so.

Temperature scaling: the logits are divided by a number that was fitted on held-out rows (Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017, arXiv 1706.04599). The most probable label stays the same. What is reported about rows
is cross-fitted: their probabilities come from a temperature that was fitted on other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from engine.tasks.folds import FOLDS, assign_folds
from engine.tasks.multi_label_metrics import cross_fit_thresholds
from engine.tasks.score_cuts import count_above_cuts

LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 20.0
PRIOR_WEIGHT = 4.0  # on the logarithm of a temperature, as a normal distribution with σ = 1/√4
LABEL_PRIOR_WEIGHT = 16.0  # on how far a label's temperature is from that of all labels: σ = 1/√16
FEWEST_EXAMPLES = 10  # rows with a label and rows without it, below which the label gets the temperature of all
MOST_POOLED = 200_000  # decisions on which the temperature of all labels is fitted; it is only where a label's starts
MOST_FITTED = 2**23  # logits that temperatures are fitted on; 800 rows of 10,000 labels say enough, and take 0.4 s
BLOCK = 2**16  # numbers that are computed at once, so that they stay in the processor's cache
MOST_STEPS = 60
TOLERANCE = 1e-7  # relative
BINS = 15  # as in the paper
CURVE_POINTS = 100
CONFIDENT_ACCURACY = 0.9
SMOOTHING_ROWS = 20


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the lowest cross entropy on these rows, between 0.05 and 20.

    logits: (rows, labels) of a softmax; labels: (rows,) indexes of the true labels. It stays near 1 as long as the rows
    are too few to say otherwise, and is 1 without rows.
    """
    logits, labels = _sample(logits, labels)
    shifted = logits - logits.max(axis=1, keepdims=True)  # the same softmax, without overflow
    own = shifted[np.arange(len(labels)), labels]

    def derivatives(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, curvature = -own.sum(dtype=np.float64), 0.0
        for block in _blocks(shifted):
            probabilities = np.exp(block * scale)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            probabilities *= block
            means = probabilities.sum(axis=1)
            slope += means.sum()
            curvature += (probabilities * block).sum() - np.square(means).sum()
        return np.array([slope]), np.array([curvature])

    return float(1 / _fit_scales(derivatives, np.ones(1), PRIOR_WEIGHT)[0])


def fit_label_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each label the temperature with the lowest binary cross entropy on these rows, between 0.05 and 20.

    logits: (rows, labels) of independent sigmoids; labels: (rows, labels) bool. Returns (labels,). A label's temperature
    stays near that of all labels together as long as its rows are too few to say otherwise, and is the same if fewer than
    FEWEST_EXAMPLES rows have the label, or do not have it.
    """
    logits, labels = _sample(logits, labels)
    margins = np.where(labels, logits, -logits)
    pooled = margins[:: margins.size // MOST_POOLED + 1].reshape(-1, 1)
    shared = _fit_scales(_sigmoid_derivatives(pooled), np.ones(1), PRIOR_WEIGHT)
    prior = np.repeat(shared, labels.shape[1])
    scales = _fit_scales(_sigmoid_derivatives(margins), prior, LABEL_PRIOR_WEIGHT)
    positives = labels.sum(axis=0)
    is_rare = np.minimum(positives, len(labels) - positives) < FEWEST_EXAMPLES
    return 1 / np.where(is_rare, prior, scales)


def cross_fit(logits: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Return each row's probabilities with a temperature that was fitted on the other folds: (rows, labels).

    logits: (rows, labels) of a softmax; labels: (rows,) indexes of the true labels.
    """
    probabilities = np.empty_like(logits)
    for own in _folds(logits, folds, seed):
        probabilities[own] = softmax(logits[own] / fit_temperature(logits[~own], labels[~own]), axis=1)
    return probabilities


def cross_fit_multi_label(logits: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Return each row's probabilities with temperatures that were fitted on the other folds: (rows, labels).

    logits: (rows, labels) of independent sigmoids; labels: (rows, labels) bool.
    """
    probabilities = np.empty_like(logits)
    for own in _folds(logits, folds, seed):
        probabilities[own] = expit(logits[own] / fit_label_temperatures(logits[~own], labels[~own]))
    return probabilities


def softmax_calibration(logits: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> dict[str, Any]:
    """Return the part `calibration` of metrics.json for a classifier with one label per row.

    logits: (rows, labels); labels: (rows,) indexes of the true labels. The confidence of an answer is the probability of
    its label. `temperature` was fitted on all rows. `ece_before` and `before` come from the logits as they are;
    `ece_after`, `after`, `coverage` and `confident_from` from `cross_fit`.
    """
    before = softmax(logits, axis=1).max(axis=1)
    after = cross_fit(logits, labels, folds, seed).max(axis=1)
    is_right = logits.argmax(axis=1) == labels
    return {
        "temperature": fit_temperature(logits, labels),
        **compare_probabilities(before, after, is_right),
        **describe_answers(after, is_right),
    }


def multi_label_calibration(
    logits: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0
) -> dict[str, Any]:
    """Return the part `calibration` of metrics.json for a classifier with any number of labels per row.

    logits: (rows, labels); labels: (rows, labels) bool. `temperature` has one number per label, in their order. The
    diagrams and their errors compare the probability of each label of each row with how often the label is true. The
    coverage and `confident_from` are about whole answers, as `answer_confidence` defines; an answer is right if all of its
    labels are, and none is missing. Both temperatures and thresholds are cross-fitted there.
    """
    before = expit(logits)
    after = cross_fit_multi_label(logits, labels, folds, seed)
    decided = before >= cross_fit_thresholds(before, labels, assign_folds(logits, folds, seed))
    return {
        "temperature": fit_label_temperatures(logits, labels).tolist(),
        **compare_probabilities(before.ravel(), after.ravel(), labels.ravel()),
        **describe_answers(answer_confidence(after, decided), (decided == labels).all(axis=1)),
    }


def answer_confidence(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Return the probability that the least certain label of each answer is decided rightly: (rows,).

    probabilities: (rows, labels), calibrated. decided: (rows, labels) bool, the labels that each answer has.
    """
    return np.where(decided, probabilities, 1 - probabilities).min(axis=1)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal width, weighted by rows (Guo et al.).

    confidence: (rows,) probabilities; correct: (rows,) bool. A bin is open below and closed above. 0 without rows.
    """
    rows, confidences, hits = _bin_sums(confidence, correct, bins)
    return float(np.abs(confidences - hits).sum() / max(1, rows.sum()))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, float | int | None]]:
    """Return the bins of a reliability diagram, lowest first: bounds, mean confidence, accuracy, rows.

    confidence: (rows,) probabilities; correct: (rows,) bool. Confidence and accuracy of a bin without rows are None.
    """
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "confidence": float(confidences / rows) if rows else None,
            "accuracy": float(hits / rows) if rows else None,
            "rows": int(rows),
        }
        for index, (rows, confidences, hits) in enumerate(zip(*_bin_sums(confidence, correct, bins), strict=True))
    ]


def coverage_accuracy(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Return how many answers have at least some confidence, and how many of these are right, from few answers to all.

    confidence: (rows,) probabilities; correct: (rows,) bool. At most 100 points with the shares `coverage` (of all rows)
    and `accuracy` (of the rows covered) of the answers whose confidence is at least `threshold`.
    """
    if not len(confidence):
        return []
    thresholds, rows, hits = _count_by_confidence(confidence, correct)
    wanted = np.arange(1, CURVE_POINTS + 1) * (len(confidence) / CURVE_POINTS)
    points = np.unique(np.searchsorted(rows, wanted).clip(max=len(rows) - 1))
    return [
        {
            "coverage": float(rows[point] / len(confidence)),
            "accuracy": float(hits[point] / rows[point]),
            "threshold": float(thresholds[point]),
        }
        for point in points
    ]


def confident_from(confidence: np.ndarray, correct: np.ndarray, accuracy: float = CONFIDENT_ACCURACY) -> float | None:
    """Return the lowest confidence such that at least this share of the answers at or above it is right.

    confidence: (rows,) probabilities, cross-fitted; correct: (rows,) bool. None if no confidence is high enough: no answer
    should then be called confident.

    To each share SMOOTHING_ROWS rows are added that are right as often as all rows are, so that a few lucky rows at the
    top do not decide. Of a classifier that is right in 60 % of all rows, the first 60 must be right without exception.
    """
    if not len(confidence):
        return None
    thresholds, rows, hits = _count_by_confidence(confidence, correct)
    smoothed = (hits + SMOOTHING_ROWS * correct.mean()) / (rows + SMOOTHING_ROWS)
    enough = np.flatnonzero(smoothed >= accuracy)
    return float(thresholds[enough[-1]]) if len(enough) else None


def compare_probabilities(before: np.ndarray, after: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Return errors and diagrams of probabilities before and after calibration. All: (decisions,)."""
    return {
        "ece_before": expected_calibration_error(before, correct),
        "ece_after": expected_calibration_error(after, correct),
        "before": reliability(before, correct),
        "after": reliability(after, correct),
    }


def describe_answers(confidence: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Return how many answers of some confidence are right, and from which on they are called confident. Both: (rows,)."""
    return {
        "coverage": coverage_accuracy(confidence, correct),
        "rows": len(confidence),
        "confident_from": confident_from(confidence, correct),
    }


def _folds(logits: np.ndarray, folds: int, seed: int) -> Iterator[np.ndarray]:
    """Yield which rows belong to each fold that has any: (rows,) bool."""
    fold_of_row = assign_folds(logits, folds, seed)
    for fold in np.unique(fold_of_row):
        yield fold_of_row == fold


def _count_by_confidence(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct confidences, highest first, with the rows at or above each and the right ones of these."""
    order = np.argsort(-confidence)
    return count_above_cuts(confidence[order], correct[order])


def _bin_sums(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of each bin, the sum of their confidences, and how many are right: (bins,) each."""
    edges = np.linspace(0, 1, bins + 1)
    indexes = (np.searchsorted(edges, confidence) - 1).clip(0, bins - 1)
    rows = np.bincount(indexes, minlength=bins)
    confidences = np.bincount(indexes, weights=confidence, minlength=bins)
    return rows, confidences, np.bincount(indexes, weights=correct, minlength=bins)


def _sample(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return evenly spaced rows of both, all of them unless they hold more than MOST_FITTED logits."""
    step = logits.size // MOST_FITTED + 1
    return logits[::step], labels[::step]


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield some rows of (rows, columns) after the other in float64."""
    rows = max(1, BLOCK // values.shape[1])
    for start in range(0, len(values), rows):
        yield values[start : start + rows].astype(np.float64)


def _sigmoid_derivatives(margins: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the derivatives for `_fit_scales` of the binary cross entropy of each column.

    margins: (rows, columns) logits, with the opposite sign where the label is not true.
    """

    def derivatives(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slopes, curvatures = np.zeros(len(scales)), np.zeros(len(scales))
        for block in _blocks(margins):
            wrong = expit(-block * scales)
            pull = block * wrong
            slopes -= pull.sum(axis=0)
            curvatures += (pull * block * (1 - wrong)).sum(axis=0)
        return slopes, curvatures

    return derivatives


def _fit_scales(
    derivatives: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], prior: np.ndarray, weight: float
) -> np.ndarray:
    """Return the inverse temperatures that minimise convex losses with a penalty on each: (problems,).

    derivatives: the first and second derivative of each problem's summed loss, (problems,) each, at scales (problems,).
    prior: (problems,), where the penalty weight · (scale / prior - log(scale)) is smallest. That is the prior of a Gamma
    distribution. A normal one on the logarithm is nearly the same near its centre, but not convex.

    Newton's method. The minimum stays between `low` and `high`; a step that leaves them goes to their geometric mean.
    """
    lowest, highest = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    low, high = np.full_like(prior, lowest), np.full_like(prior, highest)
    scales = prior
    for _ in range(MOST_STEPS):
        slopes, curvatures = derivatives(scales)
        slopes = slopes + weight * (1 / prior - 1 / scales)
        curvatures = curvatures + weight / np.square(scales)
        high = np.where(slopes > 0, scales, high)
        low = np.where(slopes > 0, low, scales)
        stepped = (scales - slopes / curvatures).clip(lowest, highest)
        is_inside = (low <= stepped) & (stepped <= high)
        previous, scales = scales, np.where(is_inside, stepped, np.sqrt(low * high))
        if np.abs(scales / previous - 1).max() < TOLERANCE:
            break
    return scales
