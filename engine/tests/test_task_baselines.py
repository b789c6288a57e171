"""Simple models of multi-label texts, scores and entities: right, bounded, and decided as the trained model is."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, mean_absolute_error
from sklearn.multiclass import OneVsRestClassifier

from engine.data.labelled_rows import Split
from engine.tasks import entity_baseline, multi_label_baseline, regression_baseline
from engine.tasks.entity_baseline import dictionary_entity_f1
from engine.tasks.linear_baseline import BaselineTooSlowError
from engine.tasks.multi_label_baseline import linear_micro_f1, majority_micro_f1
from engine.tasks.regression_baseline import linear_scores, mean_mae


def topics(rows: int, labels: int, seed: int = 0) -> Split:
    """Texts of common words, and some of each of their labels."""
    rng = np.random.default_rng(seed)
    marks = rng.random((rows, labels)) < np.linspace(0.2, 0.5, labels)
    texts = []
    for row in marks:
        own = [f"topic{label}x{rng.integers(0, 5)}" for label in np.flatnonzero(row)]
        texts.append(" ".join([*(f"word{number}" for number in rng.integers(0, 200, 8)), *own]))
    return Split(texts, marks)


def rated(rows: int, seed: int = 0) -> Split:
    """Texts whose score is the mean of the numbers that they are made of, in a unit of thousands."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 10, (rows, 4))
    texts = [" ".join(f"rating{number}" for number in row) for row in numbers]
    return Split(texts, 5000 + 1000 * (numbers.mean(axis=1) + rng.normal(0, 0.3, rows)))


def vectorise(train: Split, held_out: Split):
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=30_000, sublinear_tf=True, token_pattern=r"(?u)\S+")
    return vectorizer.fit_transform(train.texts), vectorizer.transform(held_out.texts)


@pytest.mark.slow
@pytest.mark.parametrize("most_weights", [1_000_000, 0], ids=["logistic regression", "ridge regression"])
def test_linear_micro_f1_is_at_least_that_of_scikit_learn(monkeypatch, most_weights):
    monkeypatch.setattr(multi_label_baseline, "MOST_WEIGHTS", most_weights)
    train, held_out = topics(200, 5), topics(200, 5, seed=1)
    words, held_out_words = vectorise(train, held_out)
    model = OneVsRestClassifier(LogisticRegression(C=5)).fit(words, train.labels)
    expected = f1_score(held_out.labels, model.predict(held_out_words), average="micro")
    assert 0.5 < expected - 0.03 < linear_micro_f1(train, held_out) < 1


@pytest.mark.slow
def test_logistic_regression_is_that_of_scikit_learn():
    train, held_out = topics(200, 3), topics(50, 3, seed=1)
    words, held_out_words = vectorise(train, held_out)
    model = OneVsRestClassifier(LogisticRegression(C=5, tol=1e-8, max_iter=1000)).fit(words, train.labels)
    expected = model.decision_function(held_out_words)
    weights, bias = multi_label_baseline._fit_logistic(words.astype(np.float32), train.labels, lambda: None)
    assert held_out_words @ weights + bias == pytest.approx(expected, abs=0.1)


def test_majority_takes_as_many_labels_as_are_best_in_training():
    marks = np.zeros((10, 4), dtype=bool)
    marks[:9, 2] = marks[:6, 0] = marks[:1, 3] = True
    # F1 of always {2}: 18/26; {2, 0}: 30/36; {2, 0, 3}: 32/46; all: 32/56.
    assert majority_micro_f1(Split([""] * 10, marks), Split([""] * 10, marks)) == pytest.approx(30 / 36)
    nothing = np.zeros((10, 4), dtype=bool)
    assert majority_micro_f1(Split([""] * 10, nothing), Split([""] * 10, nothing)) == 0


def test_ridge_regression_of_scores_is_that_of_scikit_learn():
    train, held_out = rated(300), rated(200, seed=1)
    words, held_out_words = vectorise(train, held_out)
    expected = Ridge(alpha=1.0).fit(words, train.labels).predict(held_out_words)
    scores = linear_scores(train, held_out)
    assert scores["linear_mae"] == pytest.approx(mean_absolute_error(held_out.labels, expected), rel=0.05)
    assert scores["linear_pearson"] == pytest.approx(np.corrcoef(expected, held_out.labels)[0, 1], abs=0.02)
    assert scores["linear_mae"] < mean_mae(train, held_out) / 2
    assert mean_mae(train, held_out) == pytest.approx(np.abs(held_out.labels - train.labels.mean()).mean())


def test_equal_scores_have_an_error_and_no_correlation():
    train, held_out = rated(30), rated(10, seed=1)
    assert linear_scores(Split(train.texts, np.full(30, 2.5)), Split(held_out.texts, np.full(10, 3.5))) == {
        "linear_mae": 1.0
    }


def entities_of(marked: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Read "from [Taipei|place] on"; return the text and its spans."""
    text, spans = "", []
    for number, part in enumerate(marked.replace("]", "[").split("[")):
        surface, _, label = part.partition("|")
        if number % 2:
            spans.append((len(text), len(text) + len(surface), label))
        text += surface
    return text, spans


def corpus(*marked: str):
    pairs = [entities_of(text) for text in marked]
    return [text for text, _ in pairs], [(row, *span) for row, (_, spans) in enumerate(pairs) for span in spans]


@pytest.mark.parametrize(
    "train, held_out, score",
    [
        (["from [Taipei|place] on"], ["[Taipei|place]!"], 1.0),
        (["from [Taipei|place] on"], ["Taipeis, taipei"], 0.0),  # only whole words in the same case
        (["[York|place]", "[New York|place]"], ["in [New York|place], [York|place]"], 1.0),  # the longest
        (["[May|person]", "[May|month]", "[May|month]"], ["in [May|month]"], 1.0),  # the most frequent label
        (["我住在[台北|place]。"], ["[台北|place]很熱"], 1.0),
        (["[José|person]"], ["[José|person] Joséphine"], 1.0),
        (["[😀 Ltd|organisation]"], ["by [😀 Ltd|organisation]"], 1.0),
        (["[ |place]"], ["a b"], 0.0),
    ],
)
def test_dictionary_marks_the_longest_entities_of_the_training_rows(train, held_out, score):
    texts, entities = corpus(*train)
    held_out_texts, held_out_entities = corpus(*held_out)
    assert dictionary_entity_f1(texts, entities, held_out_texts, held_out_entities) == score


@pytest.mark.parametrize("module", [entity_baseline, multi_label_baseline, regression_baseline])
def test_baseline_that_takes_too_long_is_given_up(monkeypatch, module):
    monkeypatch.setattr(module, "CPU_SECONDS", 0.0)
    with pytest.raises(BaselineTooSlowError):
        if module is entity_baseline:
            texts, entities = corpus("[a|b]")
            dictionary_entity_f1(texts, entities, texts, entities)
        elif module is multi_label_baseline:
            linear_micro_f1(topics(50, 3), topics(20, 3))
        else:
            linear_scores(rated(50), rated(20))
