"""Simple models of scores, which say what a run's own metrics are worth. Bounded as engine.tasks.linear_baseline is."""

from __future__ import annotations

import numpy as np

from engine.data.labelled_rows import Split
from engine.tasks.linear_baseline import CPU_SECONDS, MOST_ROWS, count_words, solve_ridge, time_limit
from engine.tasks.regression_metrics import pearson


def mean_mae(train: Split, held_out: Split) -> float:
    """Return the mean absolute error of always predicting the mean training score, in the data's unit.

    The labels of both splits are scores, (rows,).
    """
    return float(np.abs(held_out.labels - train.labels.mean()).mean())


def linear_scores(train: Split, held_out: Split) -> dict[str, float]:
    """Return `linear_mae`, in the data's unit, and `linear_pearson` of ridge regression on TF-IDF of words.

    Or of characters in scripts without spaces. The labels of both splits are scores, (rows,). `linear_pearson` is left out
    where it is undefined, because all true or all predicted scores are the same.

    Raises BaselineTooSlowError, or what scikit-learn raises for texts without any word.
    """
    check_time = time_limit(CPU_SECONDS)
    scores = train.labels[:MOST_ROWS]
    words, held_out_words = count_words(train.texts[:MOST_ROWS], held_out.texts)
    check_time()
    scale = float(scores.std()) or 1.0
    targets = ((scores - scores.mean()) / scale).astype(np.float32)[:, None]
    weights = solve_ridge(words, words.T.tocsr(), targets, check_time)
    predicted = (held_out_words @ weights)[:, 0].astype(np.float64) * scale + scores.mean()
    metrics = {"linear_mae": float(np.abs(predicted - held_out.labels).mean())}
    correlation = pearson(predicted, held_out.labels)
    return metrics if correlation is None else {**metrics, "linear_pearson": correlation}
