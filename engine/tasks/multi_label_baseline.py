"""Simple models of texts with any number of labels, which say what a run's own scores are worth.

Bounded in memory and time as engine.tasks.linear_baseline is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from engine.data.labelled_rows import Split
from engine.tasks.folds import assign_folds
from engine.tasks.linear_baseline import (
    CPU_SECONDS,
    LABELS_AT_ONCE,
    LOSS_WEIGHT,
    MAX_ITERATIONS,
    MOST_ROWS,
    MOST_WEIGHTS,
    count_words,
    solve_ridge,
    time_limit,
)
from engine.tasks.multi_label_metrics import cross_fit_thresholds, micro_f1


def majority_micro_f1(train: Split, held_out: Split) -> float:
    """Return the micro F1 of always predicting the most frequent labels, as many as have the best one in training.

    The labels of both splits are (rows, labels) bool.
    """
    counts = train.labels.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    predicted = len(train) * np.arange(1, len(counts) + 1)
    best = int((2 * counts[order].cumsum() / (predicted + counts.sum())).argmax())
    always = np.isin(np.arange(len(counts)), order[: best + 1])
    return micro_f1(np.broadcast_to(always, held_out.labels.shape), held_out.labels)


def linear_micro_f1(train: Split, held_out: Split) -> float:
    """Return the micro F1 of one linear model per label on TF-IDF of words, or of characters in scripts without spaces.

    The labels of both splits are (rows, labels) bool. Logistic regression or, where its weights would be too many, ridge
    regression. Each held-out row is decided with thresholds that were chosen on others, as for the trained model.

    Raises BaselineTooSlowError, or what scikit-learn raises for texts without any word.
    """
    check_time = time_limit(CPU_SECONDS)
    labels = train.labels[:MOST_ROWS]
    words, held_out_words = count_words(train.texts[:MOST_ROWS], held_out.texts)
    check_time()
    if words.shape[1] * labels.shape[1] <= MOST_WEIGHTS:
        weights, bias = _fit_logistic(words, labels, check_time)
        scores = expit(held_out_words @ weights + bias)
    else:
        scores = _score_by_ridge(words, labels, held_out_words, check_time)
    check_time()
    thresholds = cross_fit_thresholds(scores, held_out.labels, assign_folds(scores))
    return micro_f1(scores >= thresholds, held_out.labels)


def _fit_logistic(
    words: sparse.csr_matrix, labels: np.ndarray, check_time: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (features, labels) and bias (labels,) of a logistic regression per label, all fitted together.

    words: (texts, features); labels: (texts, labels) bool. Each has the loss of scikit-learn's with C = LOSS_WEIGHT.
    """
    features, count = words.shape[1], labels.shape[1]
    signs = np.where(labels, 1, -1).astype(np.float32)
    transposed = words.T.tocsr()

    def unpack(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias = np.split(parameters.astype(np.float32), [features * count])
        return weights.reshape(features, count), bias

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        check_time()
        weights, bias = unpack(parameters)
        margins = signs * (words @ weights + bias)
        loss = LOSS_WEIGHT * float(np.logaddexp(0, -margins).sum(dtype=np.float64))
        pull = -LOSS_WEIGHT * signs * expit(-margins)
        gradient = np.concatenate([(transposed @ pull + weights).ravel(), pull.sum(axis=0)]).astype(np.float64)
        return loss + 0.5 * float(np.square(weights).sum(dtype=np.float64)), gradient

    start = np.zeros((features + 1) * count)
    options = {"maxiter": MAX_ITERATIONS, "ftol": 1e-6}
    return unpack(minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x)


def _score_by_ridge(
    words: sparse.csr_matrix, labels: np.ndarray, held_out: sparse.csr_matrix, check_time: Callable[[], None]
) -> np.ndarray:
    """Return the scores that least squares with an L2 penalty gives each label: (held-out texts, labels), from 0 to 1."""
    shares = labels.mean(axis=0, dtype=np.float32)
    transposed = words.T.tocsr()
    scores = np.empty((held_out.shape[0], labels.shape[1]), dtype=np.float32)
    for start in range(0, labels.shape[1], LABELS_AT_ONCE):
        block = slice(start, start + LABELS_AT_ONCE)
        weights = solve_ridge(words, transposed, labels[:, block] - shares[block], check_time)
        scores[:, block] = (held_out @ weights + shares[block]).clip(0, 1)
    return scores
