"""Pairs of texts are answered as plain PEFT answers them, beside single texts of other adapters in one batch."""

from pathlib import Path

import pytest
import torch

from engine.serve.batch import BatchRow
from engine.serve.errors import WrongInputError
from engine.serve.model_files import WEIGHTS, file_state
from engine.serve.predictor import LoadedModel, Predictor
from samples import base_model_path
from testing import small_models
from testing.adapters import logits_of_plain_peft, make_adapter

TEXTS = ["Is the room clean?", "no", "I have been waiting for two hours and nobody came to help me. " * 3, "好 ✓"]
SECOND_TEXTS = [
    "It was spotless.",
    "I have been waiting for two hours. " * 4,
    "Yes, all of it was as we hoped. " * 3,
    "a",
]


@pytest.fixture(scope="module")
def small_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    small_models.build_all(root)
    return root


def load(predictor: Predictor, folder: Path) -> LoadedModel:
    predictor.load_model(folder)
    entry = predictor.cache.acquire_if_loaded((folder, file_state(folder / WEIGHTS)))
    assert entry is not None
    loaded: LoadedModel = entry.value
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "roberta-base"])
def test_pairs_and_single_texts_of_other_adapters_are_answered_as_alone(small_bases, tmp_path, name):
    """The sample base model, a BERT, has token types for the second text; RoBERTa has none."""
    base = None if name == "sample" else small_bases / name
    pairs = make_adapter(tmp_path / "pairs", ["no", "yes"], 1, base, text_pairs=True)
    scores = make_adapter(tmp_path / "scores", [], 2, base, task="regression", text_pairs=True)
    single = make_adapter(tmp_path / "single", ["a", "b", "c"], 3, base)
    predictor = Predictor(small_bases)
    rows: list[tuple[BatchRow, torch.Tensor]] = []
    models = {folder: load(predictor, folder) for folder in (pairs, scores, single)}
    assert len({id(model.model) for model in models.values()}) == 1
    assert models[pairs].info.token_types is (name == "sample")
    for folder, model in models.items():
        second_texts = SECOND_TEXTS if model.info.text_pairs else None
        expected = logits_of_plain_peft(folder, TEXTS, second_texts, base or base_model_path())
        rows += zip(model.encode(TEXTS, second_texts).rows(model.adapter), expected, strict=True)
    rows = [rows[i] for i in (7, 0, 11, 4, 1, 9, 3, 8, 2, 5, 10, 6)]
    outputs = models[single].model.outputs([row for row, _expected in rows])
    for output, (row, expected) in zip(outputs, rows, strict=True):
        torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=1e-4)
        (alone,) = models[single].model.outputs([row])
        torch.testing.assert_close(output.logits, alone.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_second_text_counts_and_so_does_the_order_of_the_two(tmp_path):
    pairs = make_adapter(tmp_path / "pairs", ["no", "yes"], 1, text_pairs=True)
    predictor = Predictor()
    one, other, swapped = (
        predictor.logits(pairs, [first], [second])
        for first, second in (("a day", "a night"), ("a day", "a lovely morning"), ("a night", "a day"))
    )
    assert (one - other).abs().max() > 1e-3 and (one - swapped).abs().max() > 1e-3


@pytest.mark.slow
def test_model_that_gets_the_other_kind_of_input_refuses_it(tmp_path):
    pairs = make_adapter(tmp_path / "pairs", ["no", "yes"], 1, text_pairs=True)
    single = make_adapter(tmp_path / "single", ["no", "yes"], 1)
    with pytest.raises(WrongInputError, match="trained on pairs of texts"):
        Predictor().predict(pairs, ["a"])
    with pytest.raises(WrongInputError, match="trained on single texts"):
        Predictor().predict(single, ["a"], ["b"])
