"""One encoder layer (attention, add & norm, feed-forward, add & norm) with its gradient written by hand.

Keeps only what the gradient needs, computes in place where nothing else reads, and never asks for the gradient of a
frozen weight. Shapes: tokens = batch × length; x: (tokens, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.kernels import int8 as int8_operations
from engine.kernels import operations
from engine.kernels.projection import ProjectionGroup

aten = torch.ops.aten
BF16_VECTOR = 32  # numbers in a register of 512 bits
SHORT_ROW = 96  # tokens; measured


@dataclass(frozen=True, slots=True)
class Shape:
    """A batch: rows, tokens of its longest row, and what is added to scores: (rows, 1, 1, length), None if no padding."""

    rows: int
    length: int
    mask: Tensor | None


class Layer:
    """The weights of one layer, taken from the model's own modules."""

    def __init__(self, parts: dict[str, nn.Module], heads: int, int8: bool = False) -> None:
        self.qkv = ProjectionGroup([parts["query"], parts["key"], parts["value"]], int8)
        self.output = ProjectionGroup([parts["output"]], int8)
        self.up = ProjectionGroup([parts["up"]], int8)
        self.down = ProjectionGroup([parts["down"]], int8)
        self.operations: Any = int8_operations if int8 else operations
        self.norm1, self.norm2 = self.operations.Norm(parts["norm1"]), self.operations.Norm(parts["norm2"])
        self.heads = heads
        self.scale = (self.output.weight.shape[0] // heads) ** -0.5

    @property
    def groups(self) -> list[ProjectionGroup]:
        """In the order of the parameters and gradients."""
        return [self.qkv, self.output, self.up, self.down]

    def __call__(self, x: Tensor, shape: Shape, training: bool) -> Tensor:
        """x: (tokens, width) → (tokens, width)."""
        parameters = [parameter for group in self.groups for parameter in group.parameters]
        return _LayerFunction.apply(x, self, shape, training, *parameters)

    def first_token(self, x: Tensor, shape: Shape) -> Tensor:
        """The layer's output for each row's first token alone: (tokens, width) → (rows, width).

        A classifier reads nothing else of the last layer. Keys and values of the other tokens are never computed:
        q·(Wk x) = (Wkᵀq)·x and Σ p (Wv x) = Wv (Σ p x), with one small product per head and row. The key's bias
        shifts all scores of a row alike, and softmax ignores that.
        """
        rows, width = shape.rows, x.shape[1]
        x = x.view(rows, shape.length, width)
        query, key, value = self.qkv.parts
        asked = (query(x[:, 0]) * self.scale).view(rows, self.heads, -1).transpose(0, 1)
        scores = key.back_by_head(asked, self.heads).transpose(0, 1) @ x.transpose(1, 2)
        if shape.mask is not None:
            scores = scores + shape.mask[:, 0]
        seen = scores.float().softmax(-1).to(x.dtype) @ x
        context = value.by_head(seen.transpose(0, 1), self.heads).transpose(0, 1).reshape(rows, width) + value.bias
        return self._rest(context, x[:, 0])

    def _rest(self, context: Tensor, first: Tensor) -> Tensor:
        output, up, down = (group.parts[0] for group in (self.output, self.up, self.down))
        attended = self.norm1.module(first + output(context))
        return self.norm2.module(attended + down(nn.functional.gelu(up(attended))))


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, shape: Shape, training: bool, *parameters: Tensor) -> Tensor:
        qkv, qkv_apart = layer.qkv.forward(x, training)
        heads = _split_heads(qkv, shape, layer.heads)
        weights, context = _attend(heads, shape, layer)
        sum1, output_apart = layer.output.forward(context, training)
        attended, stats1 = layer.norm1(sum1, x)
        inner, up_apart = layer.up.forward(attended, training)
        active, inner = layer.operations.gelu(inner)
        sum2, down_apart = layer.down.forward(active, training)
        y, stats2 = layer.norm2(sum2, attended)
        ctx.layer, ctx.shape = layer, shape
        ctx.apart = qkv_apart, output_apart, up_apart, down_apart
        ctx.attention = x, heads, weights, context if layer.output.adapters else None
        ctx.norms = sum1, stats1, sum2, stats2
        ctx.inner = inner, attended if layer.up.adapters else None, active if layer.down.adapters else None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layer: Layer = ctx.layer
        qkv_apart, output_apart, up_apart, down_apart = ctx.apart
        x, heads, weights, context = ctx.attention
        sum1, stats1, sum2, stats2 = ctx.norms
        inner, attended, active = ctx.inner
        ctx.attention = ctx.norms = ctx.inner = None
        dsum2 = layer.norm2.backward(dy, sum2, stats2)
        dactive, down = layer.down.backward(dsum2, active, down_apart, None, True)
        del active
        dinner = layer.operations.gelu_backward(dactive, inner)
        del inner
        dattended, up = layer.up.backward(dinner, attended, up_apart, dsum2, True)
        del dinner, dactive, attended
        dsum1 = layer.norm1.backward(dattended, sum1, stats1)
        dcontext, output = layer.output.backward(dsum1, context, output_apart, None, True)
        dqkv = _attend_backward(dcontext, heads, weights, ctx.shape, layer)
        dx, qkv = layer.qkv.backward(dqkv, x, qkv_apart, dsum1, ctx.needs_input_grad[0])
        return (dx, None, None, None, *qkv, *output, *up, *down)


def _split_heads(qkv: Tensor, shape: Shape, heads: int) -> Tensor:
    """(tokens, 3 × width) → (3, rows × heads, length, head width)."""
    width = qkv.shape[1] // (3 * heads)
    split = qkv.view(shape.rows, shape.length, 3, heads, width).permute(2, 0, 3, 1, 4)
    return split.reshape(3, shape.rows * heads, shape.length, width)


def _attend(heads: Tensor, shape: Shape, layer: Layer) -> tuple[Tensor, Tensor]:
    """Attention weights: (rows × heads, length, length), and the context: (tokens, width)."""
    query, key, value = heads
    masked = query.new_empty(()) if shape.mask is None else shape.mask.repeat(1, layer.heads, 1, 1).flatten(0, 1)
    beta = 0 if shape.mask is None else 1
    scores = torch.baddbmm(masked, query, key.transpose(1, 2), beta=beta, alpha=layer.scale)
    weights = _softmax(scores)
    return weights, _join_heads(torch.bmm(weights, value)[None], shape, layer.heads)


def _attend_backward(dcontext: Tensor, heads: Tensor, weights: Tensor, shape: Shape, layer: Layer) -> Tensor:
    """(tokens, width) → gradient of query, key and value: (tokens, 3 × width)."""
    query, key, value = heads
    split = dcontext.view(shape.rows, shape.length, layer.heads, -1).permute(0, 2, 1, 3)
    dout = split.reshape(query.shape)
    dheads = torch.empty_like(heads)
    torch.bmm(weights.transpose(1, 2), dout, out=dheads[2])
    dweights = torch.bmm(dout, value.transpose(1, 2))
    dscores = _softmax_backward(dweights, weights)
    torch.baddbmm(dheads[0], dscores, key, beta=0, alpha=layer.scale, out=dheads[0])
    torch.baddbmm(dheads[1], dscores.transpose(1, 2), query, beta=0, alpha=layer.scale, out=dheads[1])
    return _join_heads(dheads, shape, layer.heads)


def _softmax(scores: Tensor) -> Tensor:
    """torch's bf16 softmax is four times slower than fp32's on rows that are no multiple of its vectors."""
    if scores.shape[-1] < SHORT_ROW:
        return aten._softmax(scores.float(), -1, False).to(scores.dtype)
    return aten._softmax(scores, -1, False)


def _softmax_backward(dweights: Tensor, weights: Tensor) -> Tensor:
    if weights.shape[-1] < BF16_VECTOR:
        return aten._softmax_backward_data(dweights.float(), weights.float(), -1, torch.float32).to(weights.dtype)
    return aten._softmax_backward_data(dweights, weights, -1, weights.dtype)


def _join_heads(split: Tensor, shape: Shape, heads: int) -> Tensor:
    """(n, rows × heads, length, head width) → (tokens, n × width)."""
    number, width = split.shape[0], split.shape[-1]
    joined = split.view(number, shape.rows, heads, shape.length, width).permute(1, 3, 0, 2, 4)
    return joined.reshape(shape.rows * shape.length, number * heads * width)
