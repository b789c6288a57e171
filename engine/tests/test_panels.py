"""Compiled products of a group with its adapters, and compiled attention: those of torch in fp32, whatever the sizes and threads."""

from collections.abc import Iterator

import pytest
import torch

from engine.kernels import panels
from engine.kernels.decoder import DecoderBatch
from engine.kernels.lora_factors import LoraFactors
from engine.kernels.packed_layout import share_prefixes

NEEDS_VNNI = pytest.mark.skipif(
    not panels.available(), reason="needs a CPU with VNNI and AVX-512 BF16, and none with AMX"
)
NEEDS_BF16 = pytest.mark.skipif(not panels.has_bf16_products(), reason="needs a CPU with AVX-512 BF16")
SCALE = 2.0


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def group_of(
    outputs: list[int],
    width: int,
    rank: int,
    adapted: list[int] | None = None,
    smoothing: torch.Tensor | None = None,
) -> tuple[panels.PanelGroup, torch.Tensor, torch.Tensor]:
    """Return a group with an adapter for each of its layers, or those of `adapted`, its bias, and its weights as one matrix in fp32."""
    torch.manual_seed(0)
    weight = (torch.randn(sum(outputs), width) / 8).bfloat16()
    bias = torch.randn(sum(outputs))
    adapters: list[LoraFactors] = []
    merged = weight.float()
    first = 0
    for index, own in enumerate(outputs):
        place = slice(first, first + own)
        first += own
        if adapted is not None and index not in adapted:
            continue
        a, b = (torch.nn.Parameter(torch.randn(shape) / 8) for shape in ((rank, width), (own, rank)))
        ranks = slice(len(adapters) * rank, (len(adapters) + 1) * rank)
        adapters.append(LoraFactors(place, ranks, a, b, SCALE, torch.empty(0), torch.empty(0)))
        merged[place] += SCALE * (b @ a).detach()
    group = panels.PanelGroup(weight, bias, adapters, smoothing)
    panels.pack([group])
    return group, bias, merged


def error_of(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.float() - expected).norm() / expected.norm())


@NEEDS_VNNI
@pytest.mark.parametrize(
    ("outputs", "width", "rows", "rank", "adapted"),
    [
        ([96, 48, 48], 96, 130, 16, None), ([10, 6], 18, 5, 3, None), ([100], 50, 71, 40, None), ([64, 64], 64, 1, 20, None),
        ([384, 384, 384], 384, 70, 8, [0, 2]), ([130], 1030, 70, 256, None), ([30, 20, 40], 36, 70, 4, [1]),
    ],
)  # fmt: skip
def test_products_of_a_group_and_their_gradients_are_those_of_merged_weights(
    threads, outputs, width, rows, rank, adapted
):
    group, bias, merged = group_of(outputs, width, rank, adapted)
    x, residual_of_x = torch.randn(2, rows, width).bfloat16()
    dy, residual = torch.randn(2, rows, sum(outputs)).bfloat16()
    y, projected = group.forward(x, residual)
    assert error_of(y, x.float() @ merged.t() + bias + residual.float()) < 0.01
    plain, _ = group.forward(x)
    assert error_of(plain, x.float() @ merged.t() + bias) < 0.015
    expected = dy.float() @ merged + residual_of_x.float()
    dx, gradients = group.backward(dy, x, projected, residual_of_x.clone(), needs_dx=True)
    assert dx is not None and error_of(dx, expected) < 0.015
    none, again = group.backward(dy, x, projected, None, needs_dx=False)
    assert none is None
    assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))
    for index, adapter in enumerate(group.adapters):
        own_dy = dy[:, adapter.outputs].float()
        da = SCALE * (own_dy @ adapter.b.detach()).t() @ x.float()
        db = SCALE * own_dy.t() @ (x.float() @ adapter.a.detach().t())
        assert error_of(gradients[2 * index], da) < 0.006
        assert error_of(gradients[2 * index + 1], db) < 0.006


@NEEDS_VNNI
def test_smoothing_changes_nothing_but_how_inputs_are_rounded():
    x = torch.randn(70, 96).bfloat16()
    x[:, 7] *= 100
    dy = torch.randn(70, 80).bfloat16()
    smoothing = torch.ones(96)
    smoothing[7] = 32.0
    errors = []
    gradients = []
    for each in (None, smoothing):
        group, bias, merged = group_of([48, 32], 96, 8, smoothing=each)
        y, projected = group.forward(x)
        expected = x.float() @ merged.t() + bias
        errors.append((y.float() - expected).norm())
        gradients.append(group.backward(dy, x, projected, None, needs_dx=True))
    assert errors[1] < errors[0] / 2
    (dx, of_adapters), (smoothed_dx, of_smoothed) = gradients
    assert dx is not None and smoothed_dx is not None and torch.equal(dx, smoothed_dx)
    assert all(torch.equal(one, other) for one, other in zip(of_adapters, of_smoothed, strict=True))


@NEEDS_VNNI
def test_row_that_is_not_finite_leaves_the_others_alone():
    group, _, _ = group_of([48], 32, 4)
    x = torch.randn(20, 32).bfloat16()
    x[3, 5] = torch.nan
    y, _ = group.forward(x)
    assert y[3].isnan().all()
    assert y.isfinite().all(1).sum() == 19


@NEEDS_VNNI
def test_groups_of_odd_sizes_or_without_adapters_are_left_to_other_kernels():
    group, _, merged = group_of([6, 8], 10, 2)
    assert panels.PanelGroup.covers(merged, group.adapters)
    assert not panels.PanelGroup.covers(merged, [])
    assert not panels.PanelGroup.covers(torch.zeros(14, 7), group.adapters)


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def attend_plainly(qkv, lengths, heads, shared, width, cosines, sines):
    """Return the context of packed conversations by torch's own operations."""
    contexts = []
    for own, cosine, sine in zip(qkv.split(lengths), cosines.split(lengths), sines.split(lengths), strict=True):
        split = own.unflatten(1, (-1, width)).transpose(0, 1)
        query, key = rotate(split[:heads], cosine, sine), rotate(split[heads : heads + shared], cosine, sine)
        context = torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], split[None, heads + shared :], is_causal=True, enable_gqa=True
        )
        contexts.append(context[0].transpose(0, 1).flatten(1))
    return torch.cat(contexts)


@NEEDS_BF16
@pytest.mark.parametrize("in_common", [0, 1, 13, 66])  # tokens that all conversations but the last begin with
@pytest.mark.parametrize(
    ("lengths", "heads", "shared", "width"),
    [([1, 2, 9], 2, 1, 16), ([70, 3, 131], 4, 2, 32), ([66], 2, 2, 80), ([90, 67, 90, 200, 66], 2, 1, 16)],
)
def test_attention_of_packed_conversations_and_its_gradient_are_those_of_torch(
    threads, lengths, heads, shared, width, in_common
):
    torch.manual_seed(0)
    ids = torch.arange(sum(lengths))
    for conversation in ids.split(lengths)[:-1]:
        conversation[:in_common] = torch.arange(in_common)[: len(conversation)]
    layout = share_prefixes(ids, lengths)
    positions = torch.cat([torch.arange(length) for length in lengths])
    angles = 6 * torch.rand(max(lengths), width // 2)[positions]
    tables = [layout.to_computed(torch.cat([each, each], 1))[None] for each in (angles.cos(), angles.sin())]
    batch = DecoderBatch(layout, heads, *tables)
    tokens = tables[0].shape[1]
    qkv = torch.randn(tokens, (heads + 2 * shared) * width).bfloat16()
    dcontext = torch.randn(tokens, heads * width).bfloat16()
    plain = qkv.float().requires_grad_()
    of_all = attend_plainly(layout.to_all(plain), lengths, heads, shared, width, angles.cos(), angles.sin())
    expected = layout.to_computed(of_all)
    expected.backward(dcontext.float())
    context, logarithms = batch.attend(qkv, width**-0.5)
    assert error_of(context, expected.detach()) < 0.005
    dqkv = batch.attend_backward(dcontext, context, logarithms, qkv, width**-0.5)
    parts = [heads * width, shared * width, shared * width]
    assert plain.grad is not None
    for actual, wanted in zip(dqkv.split(parts, 1), plain.grad.split(parts, 1), strict=True):
        assert error_of(actual, wanted) < 0.006
    assert torch.equal(dqkv, batch.attend_backward(dcontext, context, logarithms, qkv, width**-0.5))
