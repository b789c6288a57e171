"""Fused forward passes give the logits and gradients of transformers and PEFT, for each architecture and kind of adapter."""

import copy
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from engine.kernels import PackedTexts, fused_forward
from engine.models.loading import cast_head_inputs

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
CONFIGS = {
    "bert": SIZES,
    "roberta": SIZES | {"max_position_embeddings": 40},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": 50},
}


def adapted(model_type, targets, task_type="SEQ_CLS", **lora):
    """Return a small random PEFT classifier. lora: arguments of LoraConfig."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, num_labels=3, attn_implementation="eager", **CONFIGS[model_type])
    heads = {"SEQ_CLS": AutoModelForSequenceClassification, "TOKEN_CLS": AutoModelForTokenClassification}
    model = heads[task_type].from_config(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    excluded = ["classifier", "pre_classifier"] if targets == "all-linear" else None
    options = {"r": 4, "lora_alpha": 8, "target_modules": targets, "exclude_modules": excluded} | lora
    model = get_peft_model(model, LoraConfig(task_type=task_type, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def fused(model, int8=False, packed=False):
    forward = fused_forward(model, int8, packed)
    assert forward is not None
    return forward


def to_bf16(model):
    """Return a copy of a model from `adapted` with frozen weights in bf16."""
    half = copy.deepcopy(model)
    for name, parameter in half.named_parameters():
        if "lora_" not in name and "modules_to_save" not in name:
            parameter.data = parameter.data.bfloat16()
    cast_head_inputs(half)
    return half


def batch():
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 3 + [0] * 6])
    ids = torch.randint(5, 50, (3, 9), generator=torch.Generator().manual_seed(2)) * mask + (1 - mask)
    return {"input_ids": ids, "attention_mask": mask}


def gradients(model, logits):
    model.zero_grad()
    logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("targets", ["query_value", "all-linear"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_fused_logits_and_gradients_are_those_of_plain_peft(model_type, targets, packed):
    pair = ["q_lin", "v_lin"] if model_type == "distilbert" else ["query", "value"]
    model = adapted(model_type, pair if targets == "query_value" else targets).train()
    expected = model(**batch()).logits
    expected_gradients = gradients(model, expected)
    actual = fused(model, packed=packed)(**batch())
    actual_gradients = gradients(model, actual)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_fused_logits_of_every_token_and_their_gradients_are_those_of_plain_peft(model_type, packed):
    model = adapted(model_type, "all-linear", "TOKEN_CLS").train()
    is_token = batch()["attention_mask"].bool()
    expected = model(**batch()).logits[is_token]
    expected_gradients = gradients(model, expected)
    forward = fused_forward(model, packed=packed, all_tokens=True)
    assert forward is not None
    actual = forward(**batch())[is_token]
    actual_gradients = gradients(model, actual)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_adapters_on_upper_layers_only_leave_the_lower_ones_without_gradient():
    model = adapted("bert", ["query", "value"], layers_to_transform=[1, 2]).train()
    expected = gradients(model, model(**batch()).logits)
    actual = gradients(model, fused(model)(**batch()))
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_dropout_gradient_is_the_slope_of_the_loss():
    model = adapted("bert", "all-linear", lora_dropout=0.3).train()
    forward = fused(model)
    parameter = next(p for name, p in model.named_parameters() if "layer.0" in name and "query.lora_B" in name)

    def loss():
        torch.manual_seed(5)
        return forward(**batch()).square().sum()

    model.zero_grad()
    loss().backward()
    step = torch.zeros_like(parameter)
    step[3, 1] = 1e-2
    with torch.no_grad():
        parameter += step
        above = loss().item()
        parameter -= 2 * step
        below = loss().item()
        parameter += step
    assert parameter.grad[3, 1].item() == pytest.approx((above - below) / 2e-2, rel=0.05, abs=1e-3)


def test_frozen_weights_are_the_same_bits_after_a_step():
    model = adapted("bert", "all-linear").train()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    forward = fused(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    forward(**batch()).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters() if name in before)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_rounding_packed_texts_to_few_shapes_changes_no_gradient(model_type):
    model = adapted(model_type, "all-linear").train()
    forward = fused(model, packed=True)
    ids, mask = batch().values()
    mask[0, 8] = 0  # 17 tokens, which become 18
    texts = PackedTexts.pack(ids, mask, torch.float32)
    rounded = texts.rounded()
    assert rounded.tokens.shape[1] > texts.tokens.shape[1] and rounded.mask.shape[-1] == 64
    expected, actual = (forward.packed_logits(packed) for packed in (texts, rounded))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    expected_gradients, actual_gradients = gradients(model, expected), gradients(model, actual)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("rows", [1, 7, 32, 256])
def test_rounded_texts_are_of_few_shapes_and_their_offsets_cover_all_tokens(rows):
    generator = torch.Generator().manual_seed(rows)
    shapes = set()
    for length in range(4, 130, 3):
        lengths = torch.randint(max(1, length // 2), length + 1, (rows, 1), generator=generator)
        mask = (torch.arange(length) < lengths).long()
        rounded = PackedTexts.pack(torch.ones_like(mask), mask, torch.bfloat16).rounded()
        starts = rounded.offsets.tolist()
        assert starts[0] == 0 and starts[-1] == rounded.tokens.shape[1] and starts == sorted(starts)
        assert max(end - start for start, end in pairwise(starts)) <= rounded.mask.shape[-1]
        shapes.add((rounded.tokens.shape, rounded.mask.shape, rounded.offsets.shape))
    assert len(shapes) <= 45


def test_a_packed_batch_is_the_padded_one_without_padding():
    model = adapted("roberta", "all-linear").train()
    padded, packed = (fused(model, packed=packed).body.embed(**batch()) for packed in (False, True))
    hidden, rectangle = padded
    tokens, end_to_end = packed
    assert tokens.shape == (18, 32)
    assert torch.equal(end_to_end.rectangle(tokens), rectangle.rectangle(hidden) * batch()["attention_mask"][..., None])


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_bf16_stays_close_to_fp32(model_type, dropout):
    model = adapted(model_type, "all-linear", lora_dropout=dropout).train()
    half = to_bf16(model)

    def step(stepped):
        torch.manual_seed(7)  # the same dropout
        logits = fused(stepped)(**batch()).float()
        return logits, gradients(stepped, logits)

    expected_logits, expected = step(model)
    logits, actual = step(half)
    assert torch.cosine_similarity(expected_logits.flatten(), logits.flatten(), 0) > 0.99
    for name, gradient in expected.items():
        assert torch.cosine_similarity(gradient.flatten(), actual[name].float().flatten(), 0) > 0.98, name


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"bias": "all"}])
def test_adapters_that_the_kernels_do_not_cover_get_no_fused_forward(lora):
    assert fused_forward(adapted("bert", ["query", "value"], **lora)) is None
