"""Pairs of texts become the same token ids and types in training and in serving, and the same logits on every path."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.data.tokens import tokenise
from engine.kernels import PackedTexts
from engine.models.text_encoding import load_tokenizer, prepare_encoding
from engine.serve.tokenizer import ServedTokenizer
from engine.tests.test_kernels import adapted, batch, fused, gradients
from engine.tests.test_text_encoding import change_json
from samples import base_model_path
from testing.small_models import ROBERTA_SPECIAL, train_bpe

WORDS = ["nobody", "came", "to", "help", "me", "at", "all", "on", "such", "a", "fine", "and", "quiet", "day"]


def random_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)  # not a secret
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 20))) for _ in range(count)]


@pytest.fixture(params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "bert":
        AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(tmp_path)
    else:
        names = {f"{role}_token": token for role, token in ROBERTA_SPECIAL.items()}
        PreTrainedTokenizerFast(
            tokenizer_object=train_bpe(WORDS), model_input_names=["input_ids", "attention_mask"], **names
        ).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.medium
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [7, 12, 25])
def test_served_pairs_have_the_tokens_of_training(folder, side, max_length):
    change_json(folder / "tokenizer_config.json", truncation_side=side)
    tokenizer = load_tokenizer(folder, "base", split_special_tokens=True)
    tokenizer.save_pretrained(folder)
    firsts, seconds = random_texts(60, 1), random_texts(60, 2)
    has_types = "token_type_ids" in tokenizer.model_input_names
    tokens = tokenise(firsts, tokenizer, max_length, text_pairs=seconds, token_types=has_types)
    served = ServedTokenizer(folder).encode(firsts, max_length, seconds, has_types)
    assert sum(text.truncated for text in served) == tokens.truncated > 0
    for row, text in enumerate(served):
        place = slice(tokens.offsets[row], tokens.offsets[row + 1])
        assert text.ids == tokens.ids[place].tolist()
        assert text.types == (tokens.types[place].tolist() if tokens.types is not None else None)
    assert (tokens.types is not None) == has_types


def test_cached_pairs_are_other_tokens_than_their_first_texts(tmp_path):
    encoding = prepare_encoding(base_model_path(), "sample", 32)
    arguments = (["a fine day"], encoding.tokenizer, 32, tmp_path)
    single = tokenise(*arguments)
    pair, cached = (tokenise(*arguments, ["all quiet"], encoding.token_types) for _ in range(2))
    assert single.types is None and len(single.ids) < len(pair.ids)
    assert encoding.token_types and pair.types is not None and cached.types is not None
    assert cached.types.tolist() == pair.types.tolist() == [0] * 5 + [1] * 3
    rows = np.array([0])
    padded = pair.padded_types(rows)
    assert padded is not None and padded.tolist() == [pair.types.tolist()] and single.padded_types(rows) is None


@pytest.mark.parametrize("packed", [False, True])
def test_fused_logits_and_gradients_of_pairs_are_those_of_plain_peft(packed):
    model = adapted("bert", "all-linear").train()
    inputs = batch()
    inputs["token_type_ids"] = torch.tensor([[0] * 4 + [1] * 5, [0] * 3 + [1] * 3 + [0] * 3, [0, 1, 1] + [0] * 6])
    expected_logits = model(**inputs).logits
    expected = gradients(model, expected_logits)
    logits = fused(model, packed=packed)(**inputs)
    assert torch.allclose(logits, expected_logits, atol=1e-5)
    assert not torch.allclose(logits, fused(model)(**batch()), atol=1e-3)  # the types count
    for name, gradient in gradients(model, logits).items():
        assert torch.allclose(gradient, expected[name], atol=1e-4), name
    rounded = PackedTexts.pack(dtype=torch.float32, **inputs).rounded()
    assert torch.allclose(fused(model, packed=True).packed_logits(rounded), expected_logits, atol=1e-5)
