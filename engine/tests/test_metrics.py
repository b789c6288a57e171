"""Metrics are what they are called: equal to scikit-learn's, also for labels that no evaluation row has."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from engine.data.labelled_rows import Split
from engine.tasks import metrics as module
from engine.tasks.metrics import classification_metrics, wrong_rows

MACRO = {"macro_f1": f1_score, "macro_precision": precision_score, "macro_recall": recall_score}


def metrics_for(truth: np.ndarray, predicted: np.ndarray, labels: int):
    return classification_metrics(np.eye(labels)[predicted] * 5, truth, [f"label {i}" for i in range(labels)])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", MACRO)
def test_macro_scores_are_those_of_scikit_learn(name, seed):
    # More labels than rows: some labels occur in the truth, some in predictions, some in neither.
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 8, 12)
    predicted = rng.integers(4, 12, 12)
    expected = MACRO[name](truth, predicted, average="macro", zero_division=0)
    assert metrics_for(truth, predicted, 12)[name] == pytest.approx(expected, abs=1e-12)


def test_labels_without_evaluation_rows_are_named():
    metrics = metrics_for(np.array([0, 0, 2]), np.array([0, 1, 2]), 4)
    assert metrics["labels_without_rows"] == ["label 1", "label 3"]
    assert metrics["per_label"]["label 1"]["support"] == 0


def test_wrong_rows_are_those_taken_for_another_label_the_most_certain_first(monkeypatch):
    logits = np.array([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
    split = Split(["right", "unsure", "sure" * 500, "other", "right too"], np.array([0, 1, 1, 0, 1]), ["b"] * 5)
    rows = wrong_rows(logits, split, ["good", "bad"])
    assert [(row["text"][:6], row["label"], row["predicted"]) for row in rows] == [
        ("suresu", "bad", "good"),
        ("unsure", "bad", "good"),
        ("other", "good", "bad"),
    ]
    assert len(rows[0]["text"]) == 1000 and rows[0]["text_pair"] == "b"
    assert rows[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))
    monkeypatch.setattr(module, "WRONG_ROWS", 1)
    assert [row["text"][:5] for row in wrong_rows(logits, split, ["good", "bad"])] == ["sures", "other"]
