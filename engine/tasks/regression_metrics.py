"""Metrics of predicted scores, each with its 95 % interval."""

from __future__ import annotations

from math import atanh, exp, sqrt, tanh
from typing import Any

import numpy as np
from scipy.special import stdtrit

from engine.data.labelled_rows import Split
from engine.intervals import Z
from engine.tasks.metrics import WORST_ROWS

SCATTER_POINTS = 500


def regression_metrics(predicted: np.ndarray, truth: np.ndarray, loss: float) -> dict[str, Any]:
    """Return the part `eval` of metrics.json.

    predicted, truth: (rows,) finite scores in the data's unit, which is that of `mae` and `rmse` too. loss: the mean loss
    of the rows. `intervals` has the 95 % interval [low, high] of each metric.

    What is undefined is None: `r2` if all true scores are the same, `pearson` and `spearman` if all true or all predicted
    ones are, and intervals of fewer than 2 rows (4 for correlations) or of perfect predictions.
    """
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    errors = np.abs(predicted - truth)
    squares = np.square(errors)
    spread = np.square(truth - truth.mean())
    has_spread = np.ptp(truth) > 0 and spread.any()
    correlation = pearson(predicted, truth)
    rank_correlation = pearson(_ranks(predicted), _ranks(truth))
    ones = np.ones(len(truth))
    # R² is 1 minus the share of the squared deviations that is left as squared errors.
    unexplained = _ratio_interval(squares, spread) if has_spread else None
    return {
        "mae": float(errors.mean()),
        "rmse": float(sqrt(squares.mean())),
        "r2": float(1 - squares.sum() / spread.sum()) if has_spread else None,
        "pearson": correlation,
        "spearman": rank_correlation,
        "loss": loss,
        "intervals": {
            "mae": _ratio_interval(errors, ones),
            "rmse": _ratio_interval(squares, ones, power=0.5),
            "r2": unexplained and [1 - unexplained[1], 1 - unexplained[0]],
            "pearson": _correlation_interval(correlation, len(truth), variance=1.0),
            "spearman": _correlation_interval(
                # Bonett and Wright, Psychometrika 65, 2000
                rank_correlation,
                len(truth),
                variance=1 + (rank_correlation or 0) ** 2 / 2,
            ),
        },
    }


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the correlation of two (rows,); None if one of them has the same number everywhere."""
    standardised = [_standardise(first), _standardise(second)]
    if standardised[0] is None or standardised[1] is None:
        return None
    return float(np.clip((standardised[0] * standardised[1]).mean(), -1, 1))


def scatter_sample(predicted: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    """Return [true, predicted] of at most 500 rows, evenly spaced in the order of the true scores, both ends included.

    predicted, truth: (rows,), in the data's unit.
    """
    order = np.lexsort((predicted, truth))
    places = np.linspace(0, len(order) - 1, min(len(order), SCATTER_POINTS)).round().astype(np.int64)
    return np.stack([truth, predicted], axis=1)[order[places]].tolist()


def worst_rows(predicted: np.ndarray, split: Split) -> list[dict[str, Any]]:
    """Return the WORST_ROWS rows with the largest absolute error, largest first.

    predicted: (rows,), row by row those of `split`, whose labels are the true scores, (rows,); all in the data's unit.
    `error` is the predicted minus the true score.
    """
    errors = predicted.astype(np.float64) - split.labels
    return [
        {
            "text": split.texts[row],
            "score": float(split.labels[row]),
            "predicted": float(predicted[row]),
            "error": float(errors[row]),
        }
        for row in np.argsort(-np.abs(errors), kind="stable")[:WORST_ROWS]
    ]


def _standardise(values: np.ndarray) -> np.ndarray | None:
    """Return the values with mean 0 and standard deviation 1, or None if all are the same."""
    if not np.ptp(values) > 0:
        return None
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    centred /= np.abs(centred).max()  # so that squares of tiny numbers are not 0
    return centred / sqrt(np.square(centred).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, equal ones with their mean rank: (rows,). As scipy.stats, which is slow to import."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def _ratio_interval(parts: np.ndarray, wholes: np.ndarray, power: float = 1.0) -> list[float] | None:
    """Return the interval of (sum of parts / sum of wholes) ** power. parts, wholes: (rows,), not negative.

    The delta method on the logarithm of a ratio of means (Casella and Berger, Statistical Inference, 2002, 5.5.4), with a
    quantile of Student's t. It agrees with a bootstrap's and costs one pass over the rows.
    """
    rows = len(parts)
    if rows < 2 or not parts.any():
        return None
    influence = parts / parts.mean() - wholes / wholes.mean()
    half_width = stdtrit(rows - 1, 0.975) * influence.std(ddof=1) / sqrt(rows)
    ratio = parts.sum() / wholes.sum()
    return [float((ratio * exp(sign * half_width)) ** power) for sign in (-1, 1)]


def _correlation_interval(correlation: float | None, rows: int, variance: float) -> list[float] | None:
    """Return the interval by Fisher's transformation, in which a correlation has the variance `variance` / (rows - 3)."""
    if correlation is None or abs(correlation) >= 1 or rows < 4:
        return None
    half_width = Z * sqrt(variance / (rows - 3))
    return [tanh(atanh(correlation) + sign * half_width) for sign in (-1, 1)]
