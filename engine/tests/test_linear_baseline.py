"""The linear baseline: right, bounded in memory and time, and never the end of a run."""

import tracemalloc

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from engine import Finished, Notice
from engine.data.rows import Split
from engine.tasks import linear_baseline
from engine.tasks.linear_baseline import BaselineTooSlowError, linear_accuracy
from engine.tests.conftest import metrics_of, run, small


def topics(rows: int, labels: int, seed: int = 0) -> Split:
    """Texts of common words among which two of ten belong to the row's label."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, labels, rows)
    texts = []
    for label in chosen:
        own = [f"topic{label}x{number}" for number in rng.integers(0, 20, 2)]
        texts.append(" ".join([*(f"word{number}" for number in rng.integers(0, 300, 8)), *own]))
    return Split(texts, chosen.astype(np.int64))


def accuracy_of_scikit_learn(model, train: Split, held_out: Split) -> float:
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=30_000, sublinear_tf=True, token_pattern=r"(?u)\S+")
    model.fit(vectorizer.fit_transform(train.texts), train.labels)
    return float(model.score(vectorizer.transform(held_out.texts), held_out.labels))


@pytest.mark.parametrize("most_weights", [1_000_000, 0], ids=["logistic regression", "ridge regression"])
def test_accuracy_is_that_of_scikit_learn(monkeypatch, most_weights):
    monkeypatch.setattr(linear_baseline, "MOST_WEIGHTS", most_weights)
    train, held_out = topics(120, 6), topics(200, 6, seed=1)
    model = LogisticRegression(C=5) if most_weights else RidgeClassifier()
    expected = accuracy_of_scikit_learn(model, train, held_out)
    assert 0.4 < expected < 0.99
    assert linear_accuracy(train, held_out) == pytest.approx(expected, abs=0.04)


@pytest.mark.slow
def test_many_labels_take_little_memory_and_their_rare_words_count():
    train, held_out = topics(2000, 200), topics(200, 200, seed=1)
    tracemalloc.start()
    accuracy = linear_accuracy(train, held_out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Logistic regression would hold 25 copies of 15,000 × 200 weights in float64: 600 MB.
    assert peak < 100e6 and accuracy > 0.3


def test_blanks_before_each_text_change_nothing():
    train, held_out = topics(200, 3), topics(100, 3, seed=1)
    moved = Split([" " * 2100 + text for text in train.texts], train.labels)
    assert linear_accuracy(moved, held_out) == linear_accuracy(train, held_out)


@pytest.mark.parametrize("most_weights", [1_000_000, 0])
def test_model_that_takes_too_long_is_given_up(monkeypatch, most_weights):
    monkeypatch.setattr(linear_baseline, "MOST_WEIGHTS", most_weights)
    monkeypatch.setattr(linear_baseline, "CPU_SECONDS", 0.0)
    with pytest.raises(BaselineTooSlowError):
        linear_accuracy(topics(200, 3), topics(100, 3))


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError(), BaselineTooSlowError("too slow"), ValueError("empty vocabulary")])
def test_fault_of_the_baseline_costs_a_number_and_not_the_run(tweets, bases, tmp_path, monkeypatch, error):
    def fail(train, held_out):
        assert (tmp_path / "artifacts/final_model/adapter_model.safetensors").exists()  # nothing can be lost any more
        raise error

    monkeypatch.setattr("engine.tasks.sequence_classification.linear_accuracy", fail)
    config = small(
        model={"name": "tiny"}, lora={"layers_to_transform": None}, system={"baseline": True}, training={"max_steps": 1}
    )
    events = run(config, tweets, tmp_path, base_models_dir=bases)
    assert "baseline_failed" in [event.code for event in events if isinstance(event, Notice)]
    assert isinstance(events[-2], Finished) and set(metrics_of(events)["baseline"]) == {"majority_accuracy"}
