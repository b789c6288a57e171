"""The operations of a layer that are not products with a weight, by torch: for any device and any precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

aten = torch.ops.aten


class TorchAddNorm:
    """Residual addition, then layer norm with frozen weights.

    s = total + x        y = (s - mean(s)) / √(var(s) + ε) · gain + shift
    """

    def __init__(self, module: nn.LayerNorm) -> None:
        self.module = module

    def __call__(self, total: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Add x to total in place; return y: (tokens, width), and the statistics that `backward` needs."""
        norm = self.module
        y, *statistics = aten.native_layer_norm(total.add_(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return y, statistics

    def backward(self, dy: Tensor, total: Tensor, statistics: list[Tensor]) -> Tensor:
        """Return the gradient of the sum: (tokens, width)."""
        norm = self.module
        only_input = [True, False, False]  # no gradients of gain and shift, which are frozen
        return aten.native_layer_norm_backward(
            dy.contiguous(), total, norm.normalized_shape, *statistics, norm.weight, norm.bias, only_input
        )[0]


def gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return gelu(x), and what `gelu_backward` needs."""
    return aten.gelu(x), x


def gelu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Overwrite dy with dy · gelu'(x)."""
    return aten.gelu_backward.grad_input(dy, x, grad_input=dy)
