"""A linear model on word counts, which says what a run's own scores are worth. Bounded in memory and time.

It needs at most about 1 GiB and half a minute of one core, whatever the number of labels, rows and words.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy import sparse

from engine.data import logistic_regression
from engine.data.labelled_rows import Split

MOST_ROWS = 20_000  # training rows
MOST_CHARACTERS = 8_000_000  # of all training rows together
LONGEST_TEXT = 2000  # characters
MOST_FEATURES = 30_000  # words and pairs of words
MOST_WEIGHTS = 1_000_000  # of a logistic regression: features times labels. L-BFGS holds 25 copies of them in float64.
LOSS_WEIGHT = 5.0  # scikit-learn's C
MAX_ITERATIONS = 60
RIDGE_PENALTY = 1.0
RIDGE_ITERATIONS = 15  # more change the accuracy by less than a point
LABELS_AT_ONCE = 64
TINY = 1e-30
CPU_SECONDS = 30.0  # not of the wall clock, which depends on what else the machine does


class BaselineTooSlowError(Exception):
    """The linear model took more CPU time than it is worth."""


def linear_accuracy(train: Split, held_out: Split) -> float:
    """Return the accuracy of a linear model on TF-IDF of words, or of characters in scripts without spaces.

    Logistic regression or, where its weights would be too many, ridge regression onto each label.

    Raises BaselineTooSlowError, or what scikit-learn raises for texts without any word.
    """
    check_time = time_limit(CPU_SECONDS)
    known_labels, labels = np.unique(train.labels[:MOST_ROWS], return_inverse=True)
    if len(known_labels) < 2:
        return float((held_out.labels == known_labels[0]).mean())
    words, held_out_words = count_words(train.texts[:MOST_ROWS], held_out.texts)
    check_time()
    if words.shape[1] * len(known_labels) <= MOST_WEIGHTS:
        model = logistic_regression.fit(
            [words],
            labels,
            len(known_labels),
            loss_weight=LOSS_WEIGHT,
            max_iterations=MAX_ITERATIONS,
            on_iteration=check_time,
        )
        predicted = model.log_probabilities([held_out_words]).argmax(axis=1)
    else:
        predicted = _predict_by_ridge(words, labels, len(known_labels), held_out_words, check_time)
    return float((known_labels[predicted] == held_out.labels).mean())


def time_limit(seconds: float) -> Callable[[], None]:
    """Return a function that raises BaselineTooSlowError once this thread has computed that long."""
    end = time.thread_time() + seconds

    def check_time() -> None:
        if time.thread_time() > end:
            raise BaselineTooSlowError(f"It took more than {seconds:.0f} seconds.")

    return check_time


def count_words(train: list[str], held_out: list[str]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return TF-IDF of training and held-out texts, (texts, features) float32 each, with the most frequent terms only."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # deferred: scikit-learn is slow to import

    sample = train[:500]
    has_spaces = sum(text.count(" ") for text in sample) > sum(map(len, sample)) / 20
    vectorizer = TfidfVectorizer(
        analyzer="word" if has_spaces else "char",
        ngram_range=(1, 2),
        max_features=MOST_FEATURES,
        sublinear_tf=True,
        token_pattern=r"(?u)\S+",  # noqa: S106  (not a password)
        dtype=np.float32,
    )
    longest = min(LONGEST_TEXT, MOST_CHARACTERS // len(train))
    words = vectorizer.fit_transform([text.strip()[:longest] for text in train])
    return words, vectorizer.transform([text.strip()[:longest] for text in held_out])


def _predict_by_ridge(
    words: sparse.csr_matrix,
    labels: np.ndarray,
    label_count: int,
    held_out: sparse.csr_matrix,
    check_time: Callable[[], None],
) -> np.ndarray:
    """Return the numbers of the labels that least squares with an L2 penalty gives the highest score: (held-out texts,).

    Each label is fitted on its own, to 1 for its rows and 0 for others, as in scikit-learn's RidgeClassifier. So a few
    labels at a time need little memory, whatever their number.
    """
    shares = np.bincount(labels, minlength=label_count).astype(np.float32) / len(labels)
    transposed = words.T.tocsr()
    highest = np.full(held_out.shape[0], -np.inf, dtype=np.float32)
    predicted = np.zeros(held_out.shape[0], dtype=np.int64)
    for start in range(0, label_count, LABELS_AT_ONCE):
        block = np.arange(start, min(start + LABELS_AT_ONCE, label_count))
        targets = (labels[:, None] == block).astype(np.float32) - shares[block]
        weights = solve_ridge(words, transposed, targets, check_time)
        scores = held_out @ weights + shares[block]
        is_higher = scores.max(axis=1) > highest
        predicted[is_higher] = start + scores[is_higher].argmax(axis=1)
        highest = np.maximum(highest, scores.max(axis=1))
    return predicted


def solve_ridge(
    words: sparse.csr_matrix, transposed: sparse.csr_matrix, targets: np.ndarray, check_time: Callable[[], None]
) -> np.ndarray:
    """Return the (features, labels) weights of least squares onto the targets (texts, labels), by conjugate gradients."""
    residuals = transposed @ targets
    weights = np.zeros_like(residuals)
    directions = residuals.copy()
    norms = np.square(residuals).sum(axis=0)
    for _ in range(RIDGE_ITERATIONS):
        check_time()
        curved = transposed @ (words @ directions) + RIDGE_PENALTY * directions
        steps = norms / np.maximum((directions * curved).sum(axis=0), TINY)
        weights += steps * directions
        residuals -= steps * curved
        new_norms = np.square(residuals).sum(axis=0)
        directions = residuals + new_norms / np.maximum(norms, TINY) * directions
        norms = new_norms
    return weights
