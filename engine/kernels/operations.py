"""The parts of a layer that are no product with a weight, in torch's own operations: any device, any precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


class Norm:
    """A layer norm with frozen weights."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, total: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Adds x to total; the norm of the sum: (rows, width), and what the gradient needs."""
        norm = self.module
        y, *stats = aten.native_layer_norm(total.add_(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return y, stats

    def backward(self, dy: Tensor, total: Tensor, stats: list[Tensor]) -> Tensor:
        """Gradient of the sum: (rows, width)."""
        norm, chosen = self.module, [True, False, False]
        return aten.native_layer_norm_backward(
            dy.contiguous(), total, norm.normalized_shape, *stats, norm.weight, norm.bias, chosen
        )[0]


def gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """gelu(x), and what the gradient needs."""
    return aten.gelu(x), x


def gelu_backward(dy: Tensor, kept: Tensor) -> Tensor:
    """Overwrites dy."""
    return aten.gelu_backward.grad_input(dy, kept, grad_input=dy)
