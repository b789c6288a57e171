"""Metrics of a classifier from its logits, and what a simple model reaches on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.data.rows import Split

BASELINE_ROWS = 20_000
WORST = 20


def classification_metrics(logits: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """All of metrics.json's `eval`. logits: (rows, labels); labels: (rows,) indexes."""
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits = confusion.diagonal().astype(float)
    precision = _ratio(hits, confusion.sum(axis=0))
    recall = _ratio(hits, confusion.sum(axis=1))
    f1 = _ratio(2 * precision * recall, precision + recall)
    present = confusion.sum(axis=1) > 0
    return {
        "accuracy": float(hits.sum() / max(1, len(labels))),
        "macro_f1": float(f1[present].mean()),
        "macro_precision": float(precision[present].mean()),
        "macro_recall": float(recall[present].mean()),
        "loss": float(row_losses(logits, labels).mean()),
        "per_label": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(confusion[index].sum()),
            }
            for index, name in enumerate(names)
        },
        "confusion_matrix": confusion.tolist(),
    }


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over labels: (rows, labels)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def row_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of each row: (rows,)."""
    return -np.log(np.clip(probabilities(logits)[np.arange(len(labels)), labels], 1e-12, None))


def worst_rows(logits: np.ndarray, split: Split, names: list[str]) -> list[dict[str, Any]]:
    """The rows with the highest loss: wrong with certainty, or labelled wrongly."""
    losses, chances = row_losses(logits, split.labels), probabilities(logits)
    return [
        {
            "text": split.texts[row],
            "label": names[split.labels[row]],
            "predicted": names[int(chances[row].argmax())],
            "probability": float(chances[row].max()),
            "loss": float(losses[row]),
        }
        for row in np.argsort(-losses, kind="stable")[:WORST]
    ]


def majority_accuracy(train: Split, held_out: Split) -> float:
    """What always answering the most frequent label reaches."""
    return float((held_out.labels == np.bincount(train.labels).argmax()).mean())


def linear_accuracy(train: Split, held_out: Split) -> float:
    """What logistic regression on TF-IDF of words (of characters in unspaced scripts) reaches."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = train.texts[:BASELINE_ROWS], train.labels[:BASELINE_ROWS]
    if len(set(labels.tolist())) < 2:
        return majority_accuracy(train, held_out)
    spaced = sum(text.count(" ") for text in texts[:500]) > sum(map(len, texts[:500])) / 20
    counts = TfidfVectorizer(
        analyzer="word" if spaced else "char", ngram_range=(1, 2), max_features=30_000, sublinear_tf=True,
        token_pattern=r"(?u)\S+",  # noqa: S106  (no password)
    )  # fmt: skip
    model = LogisticRegression(C=5, max_iter=100)
    model.fit(counts.fit_transform([text[:2000] for text in texts]), labels)
    return float((model.predict(counts.transform([text[:2000] for text in held_out.texts])) == held_out.labels).mean())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)
