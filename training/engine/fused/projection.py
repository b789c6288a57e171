"""Linear layers with LoRA that share one input, as one matrix product.

    y = x (W + s B A)ᵀ + b          W: (out, in) frozen   A: (r, in)   B: (out, r)   s: scale   (arXiv 2106.09685)

Without dropout in fp32 the update is merged into a scratch weight before each product: one matrix product each way
instead of three, for out × in × r multiplications more. The gradients of A and B never need the weight's own
gradient: dB = s dyᵀ (x Aᵀ) and dA = s (dy B)ᵀ x. With dropout, or in bf16 whose 8 bits would swallow the update,
the two thin products are kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA of some rows of a group's weight."""

    rows: slice
    a: nn.Parameter
    b: nn.Parameter
    scale: float


class ProjectionGroup:
    """Linear layers with the same input (query, key and value; or a single one). weight: (out, in), bias: (out,)."""

    def __init__(self, modules: list[nn.Module]) -> None:
        bases: list[Any] = [getattr(module, "base_layer", module) for module in modules]
        self.weight = _joined([base.weight for base in bases])
        self.bias = _joined([base.bias for base in bases])
        self.adapters: list[Adapter] = []
        self.dropout = 0.0
        start = 0
        for module, base in zip(modules, bases, strict=True):
            self._add(module, slice(start, start + base.weight.shape[0]))
            start += base.weight.shape[0]
        self.merged = torch.empty_like(self.weight) if self.adapters and self._merges else self.weight
        if self.merged is not self.weight:
            self.merged.copy_(self.weight)

    @property
    def _merges(self) -> bool:
        return self.weight.dtype == torch.float32

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A and B of each adapter, in the order of `backward`'s gradients."""
        return [parameter for adapter in self.adapters for parameter in (adapter.a, adapter.b)]

    def forward(self, x: Tensor, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x: (tokens, in) → y: (tokens, out), and the dropout masks that `backward` needs."""
        if not self.adapters:
            return torch.addmm(self.bias, x, self.weight.t()), ()
        if self._merges and not (training and self.dropout):
            return torch.addmm(self.bias, x, self.merge().t()), ()
        y = torch.addmm(self.bias, x, self.weight.t())
        masks: list[Tensor] = []
        for adapter in self.adapters:
            masks += [self._mask(x)] if training and self.dropout else []
            thin = (x * masks[-1] if masks else x) @ adapter.a.t().to(x.dtype)
            y[:, adapter.rows].addmm_(thin, adapter.b.t().to(x.dtype), alpha=adapter.scale)
        return y, tuple(masks)

    def backward(
        self, dy: Tensor, x: Tensor, masks: tuple[Tensor, ...], residual: Tensor | None, needs_dx: bool
    ) -> tuple[Any, list[Tensor]]:
        """dy: (tokens, out) → dx (+ residual, overwritten): (tokens, in), None unless needed; and the gradients of `parameters`."""
        apart = bool(masks) or not self._merges
        gradients: list[Tensor] = []
        dx = self._dx(dy, residual, self.weight if apart else self.merged) if needs_dx else None
        for index, adapter in enumerate(self.adapters):
            mine = dy[:, adapter.rows]
            seen = x * masks[index] if masks else x
            thin = (mine @ adapter.b.to(x.dtype)) * adapter.scale
            gradients.append((thin.t() @ seen).float())
            gradients.append((mine.t() @ (seen @ adapter.a.t().to(x.dtype))).float() * adapter.scale)
            if apart and dx is not None:
                update = thin @ adapter.a.to(x.dtype)
                dx += update * masks[index] if masks else update
        return dx, gradients

    def merge(self) -> Tensor:
        """W + s B A in the scratch weight: (out, in)."""
        for adapter in self.adapters:
            rows = adapter.rows
            torch.addmm(
                self.weight[rows], adapter.b.detach(), adapter.a.detach(), alpha=adapter.scale, out=self.merged[rows]
            )
        return self.merged

    def merged_with_gradient(self) -> Tensor:
        """W + s B A in fp32 as a function of A and B, for the few rows where its full gradient is cheap."""
        weight = self.weight.float()
        if not self.adapters:
            return weight
        parts, at = [], 0
        for adapter in self.adapters:
            parts += [weight[at : adapter.rows.start]] if adapter.rows.start > at else []
            parts.append(torch.addmm(weight[adapter.rows], adapter.b, adapter.a, alpha=adapter.scale))
            at = adapter.rows.stop
        return torch.cat([*parts, weight[at:]]) if at < len(weight) or len(parts) > 1 else parts[0]

    def _add(self, module: Any, rows: slice) -> None:
        if not hasattr(module, "lora_A"):
            return
        dropout = module.lora_dropout["default"]
        self.dropout = max(self.dropout, float(getattr(dropout, "p", 0.0)))
        self.adapters.append(
            Adapter(rows, module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"])
        )

    def _mask(self, x: Tensor) -> Tensor:
        return torch.empty_like(x).bernoulli_(1 - self.dropout).div_(1 - self.dropout)

    def _dx(self, dy: Tensor, residual: Tensor | None, weight: Tensor) -> Tensor:
        return dy @ weight if residual is None else residual.addmm_(dy, weight)


def _joined(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor for all; the parameters become views of it, so nothing is stored twice."""
    if len(parameters) == 1:
        return parameters[0].detach()
    joined = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, joined.split([len(parameter) for parameter in parameters]), strict=True):
        parameter.data = part
    return joined
