"""Layers of which only the input is kept in training steps, and that are computed again in the backward pass.

torch.utils.checkpoint does this for operations that keep tensors by save_for_backward. Our fused layers keep theirs elsewhere, so that
they can free them one by one, and have to be computed with gradients both times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def recompute_layer(layer: nn.Module) -> None:
    """Let a layer on a CPU keep only its first argument in training steps. Its parameters get their gradients all the same."""
    own_forward: Callable[..., Tensor] = layer.forward

    def forward(hidden_states: Tensor, **options: Any) -> Tensor:
        if not (layer.training and torch.is_grad_enabled()):
            return own_forward(hidden_states, **options)
        if not hidden_states.requires_grad:  # of the first layer: without it, there would be no backward pass
            hidden_states = hidden_states.detach().requires_grad_()
        output: Tensor = _RecomputedLayer.apply(hidden_states, partial(own_forward, **options))
        return output

    layer.forward = forward


class _RecomputedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(x), of whose graph nothing stays."""
        ctx.compute = compute
        ctx.generator = torch.get_rng_state()  # dropout
        ctx.save_for_backward(x)
        return _compute_with_gradients(x, compute)[1].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None]:
        """Compute the layer again, and walk it backwards."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.generator)
            (x,) = ctx.saved_tensors
            x, y = _compute_with_gradients(x, ctx.compute)
        torch.autograd.backward(y, dy)
        return x.grad, None


def _compute_with_gradients(x: Tensor, compute: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return x, compute(x)
