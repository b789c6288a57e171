"""Metrics are what they are called: equal to scikit-learn's, also for labels that no evaluation row has."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from engine.tasks.metrics import classification_metrics

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
