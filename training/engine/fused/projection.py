"""Linear layers with LoRA that share one input, as one matrix product.

    y = x (W + s B A)ᵀ + b          W: (out, in) frozen   A: (r, in)   B: (out, r)   s: scale   (arXiv 2106.09685)

Without dropout in fp32 the update is merged into a scratch weight before each product: one matrix product each way
instead of three, for out × in × r multiplications more. The gradients of A and B never need the weight's own
gradient: dB = s dyᵀ (x Aᵀ) and dA = s (dy B)ᵀ x. With dropout, or in bf16 whose 8 bits would swallow the update,
the thin products are kept apart: one with the A of all adapters of the group, since they read the same input, and
one with the B of each. Adapters of a group share one dropout mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA of some rows of a group's weight; its rank's columns among those of the whole group."""

    rows: slice
    columns: slice
    a: nn.Parameter
    b: nn.Parameter
    scale: float


@dataclass(frozen=True, slots=True)
class Apart:
    """Thin products of a forward pass: s A of all adapters: (ranks, in); x (s A)ᵀ: (tokens, ranks); the dropout mask of x."""

    a: Tensor
    thin: Tensor
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Part:
    """One of a group's linear layers, for few rows, without dropout: torch finds the gradients."""

    weight: Tensor
    bias: Tensor
    adapter: Adapter | None

    def __call__(self, x: Tensor) -> Tensor:
        """x: (rows, in) → x (W + s B A)ᵀ + b: (rows, out)."""
        y = linear(x, self.weight, self.bias)
        if self.adapter is None:
            return y
        a, b = self._thin(x.dtype)
        return y + linear(linear(x, a), b)

    def by_head(self, x: Tensor, heads: int) -> Tensor:
        """x: (heads, rows, in) → x (W + s B A)ᵀ, each head with its own rows of W and B: (heads, rows, out / heads)."""
        y = x @ self._split(self.weight, heads).transpose(1, 2)
        if self.adapter is None:
            return y
        a, b = self._thin(x.dtype)
        return y + (x @ a.t()) @ self._split(b, heads).transpose(1, 2)

    def back_by_head(self, y: Tensor, heads: int) -> Tensor:
        """y: (heads, rows, out / heads) → y (W + s B A): (heads, rows, in)."""
        x = y @ self._split(self.weight, heads)
        if self.adapter is None:
            return x
        a, b = self._thin(y.dtype)
        return x + (y @ self._split(b, heads)) @ a

    def _thin(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        adapter: Any = self.adapter
        return (adapter.a * adapter.scale).to(dtype), adapter.b.to(dtype)

    def _split(self, rows: Tensor, heads: int) -> Tensor:
        return rows.view(heads, -1, rows.shape[1])


class ProjectionGroup:
    """Linear layers with the same input (query, key and value; or a single one). weight: (out, in), bias: (out,)."""

    def __init__(self, modules: list[nn.Module]) -> None:
        bases: list[Any] = [getattr(module, "base_layer", module) for module in modules]
        self.weight = _joined([base.weight for base in bases])
        self.bias = _joined([base.bias for base in bases])
        self.adapters: list[Adapter] = []
        self.parts: list[Part] = []
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
    def rank(self) -> int:
        """Of all adapters together."""
        return sum(len(adapter.a) for adapter in self.adapters)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A and B of each adapter, in the order of `backward`'s gradients."""
        return [parameter for adapter in self.adapters for parameter in (adapter.a, adapter.b)]

    def forward(self, x: Tensor, training: bool) -> tuple[Tensor, Apart | None]:
        """x: (tokens, in) → y: (tokens, out), and what `backward` needs of the thin products."""
        if not self.adapters:
            return torch.addmm(self.bias, x, self.weight.t()), None
        dropout = self.dropout if training else 0.0
        if self._merges and not dropout:
            return torch.addmm(self.bias, x, self.merge().t()), None
        y = torch.addmm(self.bias, x, self.weight.t())
        mask = torch.empty_like(x).bernoulli_(1 - dropout).div_(1 - dropout) if dropout else None
        a = torch.cat([adapter.a * adapter.scale for adapter in self.adapters]).to(x.dtype)
        thin = (x if mask is None else x * mask) @ a.t()
        for adapter in self.adapters:
            y[:, adapter.rows].addmm_(thin[:, adapter.columns], adapter.b.t().to(x.dtype))
        return y, Apart(a, thin, mask)

    def backward(
        self, dy: Tensor, x: Tensor, apart: Apart | None, residual: Tensor | None, needs_dx: bool
    ) -> tuple[Any, list[Tensor]]:
        """dy: (tokens, out) → dx (+ residual, overwritten): (tokens, in), None unless needed; and the gradients of `parameters`."""
        dx = self._dx(dy, residual, self.weight if apart else self.merged) if needs_dx else None
        if not self.adapters:
            return dx, []
        if apart is None:
            return dx, self._merged_gradients(dy, x)
        return dx, self._apart_gradients(dy, x, apart, dx)

    def _merged_gradients(self, dy: Tensor, x: Tensor) -> list[Tensor]:
        gradients: list[Tensor] = []
        for adapter in self.adapters:
            mine = dy[:, adapter.rows]
            gradients.append((mine @ (adapter.b * adapter.scale)).t() @ x)
            gradients.append(mine.t() @ (x @ (adapter.a * adapter.scale).t()))
        return gradients

    def _apart_gradients(self, dy: Tensor, x: Tensor, apart: Apart, dx: Tensor | None) -> list[Tensor]:
        """Gradients of A and B; adds the adapters' share to dx."""
        dthin = torch.empty_like(apart.thin)
        for adapter in self.adapters:
            torch.mm(dy[:, adapter.rows], adapter.b.to(dy.dtype), out=dthin[:, adapter.columns])
        if dx is not None and apart.mask is None:
            dx.addmm_(dthin, apart.a)
        elif dx is not None and apart.mask is not None:
            dx.addcmul_(dthin @ apart.a, apart.mask)
        da = (dthin.t() @ (x if apart.mask is None else x * apart.mask)).float()
        gradients: list[Tensor] = []
        for adapter in self.adapters:
            gradients.append(da[adapter.columns] * adapter.scale)
            gradients.append((dy[:, adapter.rows].t() @ apart.thin[:, adapter.columns]).float())
        return gradients

    def merge(self) -> Tensor:
        """W + s B A in the scratch weight: (out, in)."""
        for adapter in self.adapters:
            rows = adapter.rows
            torch.addmm(
                self.weight[rows], adapter.b.detach(), adapter.a.detach(), alpha=adapter.scale, out=self.merged[rows]
            )
        return self.merged

    def _add(self, module: Any, rows: slice) -> None:
        adapter = self._adapter(module, rows) if hasattr(module, "lora_A") else None
        self.adapters += [adapter] if adapter else []
        self.parts.append(Part(self.weight[rows], self.bias[rows], adapter))

    def _adapter(self, module: Any, rows: slice) -> Adapter:
        dropout = module.lora_dropout["default"]
        self.dropout = max(self.dropout, float(getattr(dropout, "p", 0.0)))
        a, b, taken = module.lora_A["default"].weight, module.lora_B["default"].weight, self.rank
        return Adapter(rows, slice(taken, taken + len(a)), a, b, module.scaling["default"])

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
