"""Metrics of a classifier whose answers hold any number of labels, and a threshold for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from engine.data.labelled_rows import Split
from engine.tasks.label_scores import LabelCounts
from engine.tasks.metrics import WORST_ROWS
from engine.tasks.score_cuts import count_above_cuts

DEFAULT_THRESHOLD = 0.5
FEWEST_POSITIVES = 5  # rows of a label. In simulations chosen thresholds were then 0.06 to 0.3 better in F1 than 0.5.
LEAST_PRECISION = 0.5  # where a label is given; less is enough if it is LEAST_LIFT times the label's share of all rows
LEAST_LIFT = 1.5


def multi_label_metrics(
    logits: np.ndarray, labels: np.ndarray, names: list[str], thresholds: np.ndarray
) -> dict[str, Any]:
    """Return the part `eval` of metrics.json.

    logits: (rows, labels), one independent sigmoid each. labels: (rows, labels) bool. thresholds: probabilities, (labels,),
    or (rows, labels) from `cross_fit_thresholds`; a label is predicted where its probability reaches its threshold.

    Macro averages are those of scikit-learn with zero_division=0 over the labels that occur in the rows or in the
    predictions. The average precision of a label is scikit-learn's, and None without a row; `macro_average_precision` is
    the mean of the others. `loss` is that of torch's BCEWithLogitsLoss. `labels_without_rows` names labels without a row.

    Not scikit-learn's metrics, which take several times as long.
    """
    predicted = expit(logits.astype(np.float64)) >= thresholds
    counts = _count(predicted, labels)
    micro, macro = counts.micro_scores(), counts.macro_scores()
    average_precisions = [_average_precision(logits[:, label], labels[:, label]) for label in range(len(names))]
    defined = [value for value in average_precisions if value is not None]
    per_label = counts.per_label(names)
    for name, average_precision in zip(names, average_precisions, strict=True):
        per_label[name]["average_precision"] = average_precision
    return {
        "micro_f1": micro["f1"],
        "macro_f1": macro["f1"],
        "micro_precision": micro["precision"],
        "micro_recall": micro["recall"],
        "macro_precision": macro["precision"],
        "macro_recall": macro["recall"],
        "subset_accuracy": float((predicted == labels).all(axis=1).mean()),
        "hamming_loss": float((predicted != labels).mean()),
        "macro_average_precision": float(np.mean(defined)) if defined else None,
        "loss": float(row_losses(logits, labels).mean()),
        "per_label": per_label,
        "labels_without_rows": counts.without_rows(names),
    }


def micro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the F1 over all labels together. predicted, labels: (rows, labels) bool."""
    return _count(predicted, labels).micro_scores()["f1"]


def row_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the binary cross entropy of each row, its mean over the labels: (rows,), without any weights.

    logits: (rows, labels); labels: (rows, labels) bool.
    """
    logits = logits.astype(np.float64)
    return np.logaddexp(0, np.where(labels, -logits, logits)).mean(axis=1)


def choose_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each label the threshold with the highest F1 on these rows: (labels,) probabilities.

    probabilities: (rows, labels); labels: (rows, labels) bool. Scores on the same rows would be too good; take the
    thresholds of `cross_fit_thresholds` for them.

    All cuts are compared at which the label is right in half of the rows, or 1.5 times as often as if every row got it.
    Without this condition, a label that was not learned would be given to nearly every row, which is what maximises
    its F1 (Lipton et al., arXiv 1402.1892). A threshold lies halfway between the two probabilities that it separates, and
    among cuts of the same F1 it is the one nearest to 0.5. Labels with fewer than FEWEST_POSITIVES rows get 0.5, and so do
    labels for which there is no such cut.
    """
    thresholds = np.empty(labels.shape[1])
    for label in range(labels.shape[1]):
        order, ranked = _rank(probabilities[:, label])
        thresholds[label] = _best_threshold(ranked, labels[order, label])
    return thresholds


def cross_fit_thresholds(probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray) -> np.ndarray:
    """Return the thresholds that decide each row, chosen as by `choose_thresholds` on the rows of all other folds.

    probabilities: (rows, labels); labels: (rows, labels) bool; fold_of_row: (rows,), of `assign_folds`.
    Returns (rows, labels) probabilities.
    """
    thresholds = np.empty(labels.shape)
    own_rows = [fold_of_row == fold for fold in np.unique(fold_of_row)]
    for label in range(labels.shape[1]):
        order, ranked = _rank(probabilities[:, label])  # once for all folds: sorting takes most of the time
        truth = labels[order, label]
        for own in own_rows:
            others = ~own[order]
            thresholds[own, label] = _best_threshold(ranked[others], truth[others])
    return thresholds


def worst_rows(logits: np.ndarray, split: Split, names: list[str], thresholds: np.ndarray) -> list[dict[str, Any]]:
    """Return the WORST_ROWS rows with the highest loss, highest first: confidently wrong, or mislabelled.

    logits: (rows, labels), row by row those of `split`, whose labels are (rows, labels) bool; names: of the labels;
    thresholds: as in `multi_label_metrics`. `probabilities` has the labels that are true or predicted, since a row may
    have thousands of others.
    """
    losses = row_losses(logits, split.labels)
    probabilities = expit(logits.astype(np.float64))
    predicted = probabilities >= thresholds

    def names_of(marks: np.ndarray) -> list[str]:
        return [names[label] for label in np.flatnonzero(marks)]

    return [
        {
            "text": split.texts[row],
            "labels": names_of(split.labels[row]),
            "predicted": names_of(predicted[row]),
            "probabilities": {
                names[label]: float(probabilities[row, label])
                for label in np.flatnonzero(split.labels[row] | predicted[row])
            },
            "loss": float(losses[row]),
        }
        for row in np.argsort(-losses, kind="stable")[:WORST_ROWS]
    ]


def _count(predicted: np.ndarray, labels: np.ndarray) -> LabelCounts:
    return LabelCounts((predicted & labels).sum(axis=0), predicted.sum(axis=0), labels.sum(axis=0))


def _rank(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in the order of their scores, highest first, and these scores in float64: (rows,) each."""
    order = np.argsort(-scores)
    return order, scores[order].astype(np.float64)


def _best_threshold(ranked: np.ndarray, truth: np.ndarray) -> float:
    """Return one label's threshold. ranked: (rows,) probabilities, highest first; truth: (rows,) bool of the same rows."""
    positives = int(truth.sum())
    if positives < FEWEST_POSITIVES:
        return DEFAULT_THRESHOLD
    above, rows, hits = count_above_cuts(ranked, truth)
    is_useful = hits / rows >= min(LEAST_PRECISION, LEAST_LIFT * positives / len(truth))
    if not is_useful.any():
        return DEFAULT_THRESHOLD
    f1 = np.where(is_useful, 2 * hits / (rows + positives), 0)
    below = np.append(above[1:], 0.0)
    middle = (above + below) / 2
    cuts = np.where(middle > below, middle, above)  # between two neighbours in float64 there is no number
    best = cuts[f1 == f1.max()]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the mean precision at each true row, counted down to the last row of its score; None without a true row."""
    if not truth.any():
        return None
    order, ranked = _rank(scores)
    _, rows, hits = count_above_cuts(ranked, truth[order])
    return float((np.diff(hits, prepend=0) * hits / rows).sum() / hits[-1])
