"""The forward pass of models that transformers itself computes: an answer depends on its text alone."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BigBirdConfig

from engine.models.forward import plain_forward

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 256,
}


def tiny_big_bird(auto_class: Any = AutoModelForSequenceClassification) -> Any:
    torch.manual_seed(0)
    config = BigBirdConfig(**SIZES, vocab_size=50, block_size=4, num_random_blocks=1)
    return auto_class.from_config(config).eval()


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_big_bird_answers_a_text_alike_whatever_was_asked_before_or_beside_it(auto_class):
    """Block-sparse attention beyond 28 tokens, full attention up to there."""
    model = tiny_big_bird(auto_class)
    forward = plain_forward(model, max_length=128)
    lengths = [5, 28, 29, 61, 120]
    rows = torch.randint(5, 50, (len(lengths), max(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode():
        together = forward(input_ids=rows, attention_mask=mask)
        for i in reversed(range(len(lengths))):  # as transformers computes it, in a model that has answered nothing yet
            ids = rows[i : i + 1, : lengths[i]]
            alone = tiny_big_bird(auto_class)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            assert torch.allclose(forward(input_ids=ids, attention_mask=torch.ones_like(ids)), alone, atol=1e-5)
            own = together[i] if together.dim() == 2 else together[i, : lengths[i]]
            assert torch.allclose(own, alone[0], atol=1e-5)


def test_big_bird_for_short_texts_has_full_attention_from_the_start():
    model = tiny_big_bird()
    plain_forward(model, max_length=28)
    assert model.bert.attention_type == "original_full"
