"""One encoder layer (attention, add and norm, feed-forward, add and norm) with its gradient written by hand.

It keeps only what the gradient needs, works in place where nothing else reads the tensor, and never computes the gradient of a
frozen weight. Shapes: tokens = rows × length; x: (tokens, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.kernels import int8 as int8_operations
from engine.kernels import operations
from engine.kernels.projection import LowRankActivations, ProjectionGroup
from engine.models.architectures import LayerModules

aten = torch.ops.aten
# torch's softmax on bf16 rows that are no multiple of its vectors is four times slower than on fp32 rows. Below these
# lengths (in tokens, measured) the detour through fp32 is faster.
FP32_SOFTMAX_LENGTH = 96
FP32_SOFTMAX_BACKWARD_LENGTH = 32  # numbers in a register of 512 bits


@dataclass(frozen=True, slots=True)
class BatchShape:
    """A padded batch: rows, tokens per row, and what is added to attention scores: (rows, 1, 1, length), None without padding."""

    rows: int
    length: int
    mask: Tensor | None


class FusedLayer:
    """The weights of one layer, taken from the model's own modules."""

    def __init__(self, layer: nn.Module, modules: LayerModules, heads: int, int8: bool = False) -> None:
        query_key_value = [layer.get_submodule(path) for path in (modules.query, modules.key, modules.value)]
        self.qkv = ProjectionGroup(query_key_value, int8)
        self.output = ProjectionGroup([layer.get_submodule(modules.output)], int8)
        self.up = ProjectionGroup([layer.get_submodule(modules.up)], int8)
        self.down = ProjectionGroup([layer.get_submodule(modules.down)], int8)
        add_norm: Any = int8_operations.CompiledAddNorm if int8 else operations.TorchAddNorm
        self.attention_norm = add_norm(layer.get_submodule(modules.attention_norm))
        self.output_norm = add_norm(layer.get_submodule(modules.output_norm))
        self.gelu = int8_operations.gelu if int8 else operations.gelu
        self.gelu_backward = int8_operations.gelu_backward if int8 else operations.gelu_backward
        self.heads = heads
        self.scale = (self.output.weight.shape[0] // heads) ** -0.5

    @property
    def groups(self) -> list[ProjectionGroup]:
        """Return the groups in the order in which _LayerFunction takes parameters and returns gradients."""
        return [self.qkv, self.output, self.up, self.down]

    def __call__(self, x: Tensor, shape: BatchShape, training: bool) -> Tensor:
        """Return the layer's output: (tokens, width) for x: (tokens, width); `training` turns on dropout and int8."""
        parameters = [parameter for group in self.groups for parameter in group.parameters]
        return _LayerFunction.apply(x, self, shape, training, *parameters)

    def first_token(self, x: Tensor, shape: BatchShape) -> Tensor:
        """Return the layer's output for each row's first token alone: (tokens, width) → (rows, width).

        A classifier reads nothing else of the last layer. Keys and values of the other tokens are never computed; there is
        one small product per head and row instead, with the query q, the weights Wk and Wv, and attention p:

            q · (Wk x) = (Wkᵀ q) · x        Σ p (Wv x) = Wv (Σ p x)

        The key's bias shifts all scores of a row alike, which softmax ignores, and the value's is added once, as Σ p = 1.
        """
        rows, width = shape.rows, x.shape[1]
        x = x.view(rows, shape.length, width)
        query, key, value = self.qkv.members
        scaled_query = (query(x[:, 0]) * self.scale).view(rows, self.heads, -1).transpose(0, 1)
        scores = key.transposed_by_head(scaled_query, self.heads).transpose(0, 1) @ x.transpose(1, 2)
        if shape.mask is not None:
            scores = scores + shape.mask[:, 0]
        mixed = scores.float().softmax(-1).to(x.dtype) @ x
        context = value.by_head(mixed.transpose(0, 1), self.heads).transpose(0, 1).reshape(rows, width) + value.bias
        (output,) = self.output.members
        (up,) = self.up.members
        (down,) = self.down.members
        attended = self.attention_norm.module(x[:, 0] + output(context))
        return self.output_norm.module(attended + down(nn.functional.gelu(up(attended))))


@dataclass(slots=True)
class _Saved:
    """What the gradient of a layer needs. `None` where a group without adapters needs no input."""

    x: Tensor
    heads: Tensor
    weights: Tensor
    context: Tensor | None
    attention_sum: Tensor
    attention_statistics: list[Tensor]
    attended: Tensor | None
    inner: Tensor
    active: Tensor | None
    output_sum: Tensor
    output_statistics: list[Tensor]
    low_rank: tuple[LowRankActivations | None, ...]


class _LayerFunction(torch.autograd.Function):
    """The layer as one operation of autograd; see torch.autograd.Function for the protocol."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: FusedLayer, shape: BatchShape, training: bool, *parameters: Tensor
    ) -> Tensor:
        qkv, qkv_low_rank = layer.qkv.forward(x, training)
        heads, weights, context = attend(qkv, shape, layer)
        attention_sum, output_low_rank = layer.output.forward(context, training)
        attended, attention_statistics = layer.attention_norm(attention_sum, x)
        inner, up_low_rank = layer.up.forward(attended, training)
        active, inner = layer.gelu(inner)
        output_sum, down_low_rank = layer.down.forward(active, training)
        y, output_statistics = layer.output_norm(output_sum, attended)
        ctx.layer = layer
        ctx.shape = shape
        # Not save_for_backward, which would keep all of them until the backward pass has ended.
        ctx.saved = _Saved(
            x,
            heads,
            weights,
            context if layer.output.adapters else None,
            attention_sum,
            attention_statistics,
            attended if layer.up.adapters else None,
            inner,
            active if layer.down.adapters else None,
            output_sum,
            output_statistics,
            (qkv_low_rank, output_low_rank, up_low_rank, down_low_rank),
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the layer backwards. A sum passes its gradient on to both of its inputs, hence the two residuals."""
        layer: FusedLayer = ctx.layer
        saved: Any = ctx.saved  # a _Saved, whose fields are set to None when nothing needs them any more
        ctx.saved = None
        qkv_low_rank, output_low_rank, up_low_rank, down_low_rank = saved.low_rank
        doutput_sum = layer.output_norm.backward(dy, saved.output_sum, saved.output_statistics)
        dactive, down_gradients = layer.down.backward(doutput_sum, saved.active, down_low_rank, None, True)
        saved.active = None  # tensors are freed as early as possible: this is where memory is highest
        dinner = layer.gelu_backward(dactive, saved.inner)
        saved.inner = None
        dattended, up_gradients = layer.up.backward(dinner, saved.attended, up_low_rank, doutput_sum, True)
        saved.attended = None
        del dinner, dactive
        dattention_sum = layer.attention_norm.backward(dattended, saved.attention_sum, saved.attention_statistics)
        dcontext, output_gradients = layer.output.backward(dattention_sum, saved.context, output_low_rank, None, True)
        dqkv = attend_backward(dcontext, saved.heads, saved.weights, ctx.shape, layer)
        dx, qkv_gradients = layer.qkv.backward(dqkv, saved.x, qkv_low_rank, dattention_sum, ctx.needs_input_grad[0])
        no_gradient = (None, None, None)  # of layer, shape and training
        return (dx, *no_gradient, *qkv_gradients, *output_gradients, *up_gradients, *down_gradients)


def _join_heads(split: Tensor, shape: BatchShape, heads: int) -> Tensor:
    """Return (tokens, n × width) for (n, rows × heads, length, head width)."""
    number, width = split.shape[0], split.shape[-1]
    joined = split.view(number, shape.rows, heads, shape.length, width).permute(1, 3, 0, 2, 4)
    return joined.reshape(shape.rows * shape.length, number * heads * width)


def attend(qkv: Tensor, shape: BatchShape, layer: FusedLayer) -> tuple[Tensor, Tensor, Tensor]:
    """Compute attention from query, key and value side by side, qkv: (tokens, 3 × width).

    Return them by head: (3, rows × heads, length, head width), the attention weights P: (rows × heads, length, length),
    and the context: (tokens, width).

    P = softmax(scale · Q Kᵀ + mask)        context = P V

    By hand, because torch's flash attention on CPUs takes 9.7 ms backward for 32 texts of 27 tokens, and this takes 0.2 ms.
    """
    head_width = qkv.shape[1] // (3 * layer.heads)
    split = qkv.view(shape.rows, shape.length, 3, layer.heads, head_width).permute(2, 0, 3, 1, 4)
    heads = split.reshape(3, shape.rows * layer.heads, shape.length, head_width)
    query, key, value = heads
    if shape.mask is None:
        mask = query.new_empty(())  # baddbmm ignores it, as beta is 0
        beta = 0
    else:
        mask = shape.mask.repeat(1, layer.heads, 1, 1).flatten(0, 1)
        beta = 1
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), beta=beta, alpha=layer.scale)
    if scores.shape[-1] < FP32_SOFTMAX_LENGTH:
        weights = aten._softmax(scores.float(), -1, False).to(scores.dtype)
    else:
        weights = aten._softmax(scores, -1, False)
    return heads, weights, _join_heads(torch.bmm(weights, value)[None], shape, layer.heads)


def attend_backward(dcontext: Tensor, heads: Tensor, weights: Tensor, shape: BatchShape, layer: FusedLayer) -> Tensor:
    """Return the gradients of query, key and value: (tokens, 3 × width) for dcontext: (tokens, width).

    With attention P, scores S and the context C = P V:

        dV = Pᵀ dC        dP = dC Vᵀ        dS = P (dP - Σ P dP)        dQ = scale · dS K        dK = scale · dSᵀ Q
    """
    query, key, value = heads
    split = dcontext.view(shape.rows, shape.length, layer.heads, -1).permute(0, 2, 1, 3)
    dcontext_heads = split.reshape(query.shape)
    dheads = torch.empty_like(heads)
    dquery, dkey, dvalue = dheads
    torch.bmm(weights.transpose(1, 2), dcontext_heads, out=dvalue)
    dweights = torch.bmm(dcontext_heads, value.transpose(1, 2))
    if weights.shape[-1] < FP32_SOFTMAX_BACKWARD_LENGTH:
        dscores = aten._softmax_backward_data(dweights.float(), weights.float(), -1, torch.float32).to(weights.dtype)
    else:
        dscores = aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
    torch.baddbmm(dquery, dscores, key, beta=0, alpha=layer.scale, out=dquery)
    torch.baddbmm(dkey, dscores.transpose(1, 2), query, beta=0, alpha=layer.scale, out=dkey)
    return _join_heads(dheads, shape, layer.heads)
