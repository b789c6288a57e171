"""One encoder layer (attention, add and norm, feed-forward, add and norm) with its gradient written by hand.

It keeps only what the gradient needs, works in place where nothing else reads the tensor, and never computes the gradient of a
frozen weight. Shapes: tokens are those of the whole batch; x: (tokens, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.kernels import int8 as int8_operations
from engine.kernels import operations
from engine.kernels.attention import Batch, Saved
from engine.kernels.projection import LowRankActivations, ProjectionGroup
from engine.models.architectures import LayerModules


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

    def __call__(self, x: Tensor, batch: Batch, training: bool) -> Tensor:
        """Return the layer's output: (tokens, width) for x: (tokens, width); `training` turns on dropout and int8."""
        parameters = [parameter for group in self.groups for parameter in group.parameters]
        return _LayerFunction.apply(x, self, batch, training, *parameters)

    def first_token(self, x: Tensor, batch: Batch) -> Tensor:
        """Return the layer's output for each row's first token alone: (tokens, width) → (rows, width).

        A classifier reads nothing else of the last layer. Keys and values of the other tokens are never computed; there is
        one small product per head and row instead, with the query q, the weights Wk and Wv, and attention p:

            q · (Wk x) = (Wkᵀ q) · x        Σ p (Wv x) = Wv (Σ p x)

        The key's bias shifts all scores of a row alike, which softmax ignores, and the value's is added once, as Σ p = 1.
        """
        rows, width = batch.rows, x.shape[1]
        x = batch.rectangle(x)
        query, key, value = self.qkv.members
        scaled_query = (query(x[:, 0]) * self.scale).view(rows, self.heads, -1).transpose(0, 1)
        scores = key.transposed_by_head(scaled_query, self.heads).transpose(0, 1) @ x.transpose(1, 2)
        if batch.mask is not None:
            scores = scores + batch.mask[:, 0]
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
    attention: Saved
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
    def forward(ctx: Any, x: Tensor, layer: FusedLayer, batch: Batch, training: bool, *parameters: Tensor) -> Tensor:
        qkv, qkv_low_rank = layer.qkv.forward(x, training)
        context, attention = batch.attend(qkv, layer.heads, layer.scale)
        attention_sum, output_low_rank = layer.output.forward(context, training)
        attended, attention_statistics = layer.attention_norm(attention_sum, x)
        inner, up_low_rank = layer.up.forward(attended, training)
        active, inner = layer.gelu(inner)
        output_sum, down_low_rank = layer.down.forward(active, training)
        y, output_statistics = layer.output_norm(output_sum, attended)
        ctx.layer = layer
        ctx.batch = batch
        # Not save_for_backward, which would keep all of them until the backward pass has ended.
        ctx.saved = _Saved(
            x,
            attention,
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
        dqkv = ctx.batch.attend_backward(dcontext, saved.attention, layer.heads, layer.scale)
        dx, qkv_gradients = layer.qkv.backward(dqkv, saved.x, qkv_low_rank, dattention_sum, ctx.needs_input_grad[0])
        no_gradient = (None, None, None)  # of layer, batch and training
        return (dx, *no_gradient, *qkv_gradients, *output_gradients, *up_gradients, *down_gradients)
