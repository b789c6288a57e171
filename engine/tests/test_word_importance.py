"""Which words an answer depends on: both methods find the word that decided, and gradients sum up to the answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.serve.answers import Answer, LabelsPrediction, Prediction, ScorePrediction
from engine.serve.errors import PredictionFailedError, WrongInputError
from engine.serve.merged_model import MergedModel
from engine.serve.predictor import Predictor
from engine.serve.tokenizer import ServedTokenizer
from engine.serve.word_importance import Explanation, Word, measure_word_importance
from engine.tests.conftest import run, small
from testing import small_models
from testing.adapters import make_adapter

FILLERS = ["the", "a", "room", "day", "street", "house", "table", "very", "old", "new", "big", "was", "is", "near"]
Explain = Callable[..., list[Explanation]]


def random_sentence(chance: np.random.Generator, *words: str) -> str:
    sentence = [*chance.choice(FILLERS, 8), *words]
    return " ".join(chance.permutation(sentence))


def train_small(root: Path, frame: pl.DataFrame, task: str, **data: str) -> Path:
    """Train on rows whose answer one word decides; return the final model."""
    frame.write_parquet(root / "rows.parquet")
    config = small(
        task=task,
        data={"train_samples": 192, "eval_samples": 32, **data},
        training={"max_steps": 48, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 8},
    )
    run(config, root / "rows.parquet", root / "results")
    return root / "results/artifacts/final_model"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of single texts: those with "zebra" are wild, those with "kitten" tame."""
    chance = np.random.default_rng(0)
    labels = ["wild", "tame"] * 120
    texts = [random_sentence(chance, "zebra" if label == "wild" else "kitten") for label in labels]
    frame = pl.DataFrame({"text": texts, "label": labels})
    return train_small(tmp_path_factory.mktemp("planted"), frame, "sequence_classification")


@pytest.fixture(scope="module")
def planted_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pairs, whose score is high if the second text has "zebra"."""
    chance = np.random.default_rng(0)
    scores = [10.0, 20.0] * 120
    pairs = [random_sentence(chance, "zebra" if score > 15 else "kitten") for score in scores]
    frame = pl.DataFrame({"text": [random_sentence(chance) for _ in scores], "text_pair": pairs, "label": scores})
    return train_small(tmp_path_factory.mktemp("pairs"), frame, "regression", text_pair_column="text_pair")


def leave_one_out(predictor: Predictor, folder: Path, text: str, outputs: list[int], pair: str | None = None):
    return measure_word_importance(
        lambda texts, pairs: predictor.predict(folder, texts, pairs).predictions, text, outputs, pair, seconds=60
    )


def by_gradients(predictor: Predictor, folder: Path, text: str, outputs: list[int], pair: str | None = None):
    return predictor.explain_by_gradients(folder, text, outputs, pair)


def strongest(words: list[Word]) -> str:
    return max(words, key=lambda word: word.weight or 0).text


@pytest.mark.slow
@pytest.mark.parametrize("explain", [leave_one_out, by_gradients])
def test_word_that_a_model_has_learned_from_weighs_most(planted, explain: Explain):
    predictor = Predictor()
    for text, word in (("A very old zebra, near the house", "zebra"), ("the kitten is on a new table", "kitten")):
        (answer,) = predictor.predict(planted, [text]).predictions
        assert isinstance(answer, Prediction) and answer.labels[answer.label] == {"zebra": "wild"}.get(word, "tame")
        (explanation,) = explain(predictor, planted, text, [answer.label])
        assert strongest(explanation.words) == word
        assert "".join(each.text for each in explanation.words) == text
        assert explanation.value == pytest.approx(answer.probabilities[answer.label], abs=1e-4)
        assert (explanation.completeness_error or 0) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("explain", [leave_one_out, by_gradients])
def test_word_of_the_second_text_weighs_most_where_it_decides_and_in_the_unit_of_the_scores(
    planted_pairs, explain: Explain
):
    predictor = Predictor()
    text, pair = "the table was very old", "a new zebra near the street"
    (answer,) = predictor.predict(planted_pairs, [text], [pair]).predictions
    assert isinstance(answer, ScorePrediction) and answer.score > 15
    (explanation,) = explain(predictor, planted_pairs, text, [0], pair)
    assert explanation.pair_words is not None
    weights = {word.text: word.weight or 0 for word in [*explanation.words, *explanation.pair_words]}
    assert max(weights, key=weights.__getitem__) == "zebra" and weights["zebra"] > 2
    assert explanation.value == pytest.approx(answer.score, abs=1e-3)
    assert "".join(word.text for word in explanation.pair_words) == pair
    assert (explanation.completeness_error or 0) < 0.2  # of about five


@pytest.fixture(scope="module")
def small_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    small_models.build_all(root)
    return root


LONG = "I have been waiting for two hours and nobody came to help me, which is a pity. " * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "distilbert-base-uncased", "roberta-base", "albert-base-v2"])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["shared", "merged"])
def test_gradients_of_every_architecture_sum_up_to_the_answer(small_bases, tmp_path, name, lora):
    base = None if name == "sample" else small_bases / name
    if name.startswith("distilbert"):
        lora = lora | {"target_modules": ["q_lin", "v_lin"]}
    folder = make_adapter(
        tmp_path / "model", ["a", "b", "c"], 3, base, task="multi_label_classification", text_pairs=True, **lora
    )
    predictor = Predictor(small_bases)
    for text, pair in (("Was it good?", "好 it's uncommonly fine ✓"), (LONG, LONG)):
        (answer,) = predictor.predict(folder, [text], [pair]).predictions
        assert isinstance(answer, LabelsPrediction)
        explanations = predictor.explain_by_gradients(folder, text, [0, 2], pair)
        for output, explanation in zip((0, 2), explanations, strict=True):
            assert explanation.output == output
            assert explanation.value == pytest.approx(answer.probabilities[output], abs=1e-4)
            assert explanation.completeness_error is not None and explanation.completeness_error < 0.02
            assert explanation.pair_words is not None
            assert all(any(word.weight for word in words) for words in (explanation.words, explanation.pair_words))
    assert explanations[0].words[-2].weight is None  # the end of a text that is too long is not read


@pytest.mark.medium
def test_tokens_are_found_in_both_texts_of_a_pair(tmp_path):
    folder = make_adapter(tmp_path / "model", ["a", "b"], 1, text_pairs=True)
    tokenizer = ServedTokenizer(folder)
    text, pair = "An e\u0301clair 🍰 cost", "太貴了 unaffordably"
    encoded = tokenizer.encode([text], 32, [pair], True)[0]
    places = tokenizer.find_tokens(text, 32, pair)
    assert len(places) == len(encoded.ids)
    special = [i for i, place in enumerate(places) if place is None]
    assert len(special) == 3 and (special[0], special[-1]) == (0, len(places) - 1)
    pieces = [(text, pair)[place[0]][place[1] : place[2]] for place in places if place]
    assert "".join(pieces).replace("e\u0301", "e") == (text + pair).replace(" ", "").replace("e\u0301", "e")
    assert "貴" in pieces and "🍰" in pieces and places[special[1] + 1] == (1, 0, 1)


@pytest.mark.slow
def test_explanations_stay_within_the_memory_limit_and_are_computed_one_at_a_time(tmp_path, monkeypatch):
    folder = make_adapter(tmp_path / "model", ["a", "b"], 1)
    predictor = Predictor(memory_mb=200, patience=0.1)
    predictor.predict(folder, ["a day"])
    predictor.explain_by_gradients(folder, "a day", [0])
    assert predictor.cache.used <= predictor.cache.limit
    predictor.predict(folder, ["a day"])
    with predictor._explaining, pytest.raises(Exception, match="Another explanation"):
        predictor.explain_by_gradients(folder, "a day", [0])
    with pytest.raises(WrongInputError):
        predictor.explain_by_gradients(folder, "a day", [0], "a night")


@pytest.mark.slow
def test_model_whose_embeddings_cannot_be_replaced_says_so(tmp_path, monkeypatch):
    folder = make_adapter(tmp_path / "model", ["a", "b"], 1)
    plain = MergedModel.logits_of_embeddings
    monkeypatch.setattr(MergedModel, "logits_of_embeddings", lambda *arguments: plain(*arguments) + 1)
    with pytest.raises(PredictionFailedError, match="choose leave_one_out"):
        Predictor().explain_by_gradients(folder, "a day", [0])


def answers_by_word(texts: list[str], pairs: list[str] | None) -> list[Answer]:
    shares = [0.9 if "good" in text else 0.4 for text in pairs or texts]
    return [Prediction(0, ("a", "b"), (share, 1 - share), False) for share in shares]


def test_word_counts_by_what_is_lost_without_it():
    one, other = measure_word_importance(answers_by_word, "a good, 好 day", [0, 1])
    assert [word.text for word in one.words] == ["a", " ", "good", ", ", "好", " ", "day"]
    assert [word.weight for word in one.words] == pytest.approx([0, None, 0.5, None, 0, None, 0])
    assert one.words[2].heat == 9 and other.words[2].weight == pytest.approx(-0.5) and one.pair_words is None


def test_words_of_both_texts_are_left_out_in_turns():
    (explanation,) = measure_word_importance(answers_by_word, "word " * 100, [0], "a good day")
    assert explanation.pair_words is not None
    assert [word.weight for word in explanation.pair_words] == pytest.approx([0, None, 0.5, None, 0])
    assert sum(word.weight is not None for word in explanation.words) == 61


def test_words_of_a_long_text_are_bounded_in_number_and_time():
    def tried(seconds: float) -> list[int]:
        (explanation,) = measure_word_importance(answers_by_word, "word " * 100, [0], seconds=seconds)
        return [number for number, word in enumerate(explanation.words[::2]) if word.weight is not None]

    assert tried(60) == list(range(64)) and tried(0) == list(range(8))


def test_heat_of_a_score_is_relative_to_how_much_scores_differ():
    assert Word("a", 3.0, scale=100.0).heat == 1 and Word("a", 3.0, scale=10.0).heat == 6
