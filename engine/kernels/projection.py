"""Linear layers with LoRA that share one input, as one matrix product.

    y = x (W + s B A)ᵀ + b          W: (out, in) frozen   A: (r, in)   B: (out, r)   s: scale   (arXiv 2106.09685)

Without dropout in fp32 the update is merged into a scratch weight before each product: one matrix product each way
instead of three, for out × in × r multiplications more. The gradients of A and B never need the weight's own
gradient: dB = s dyᵀ (x Aᵀ) and dA = s (dy B)ᵀ x. With dropout, or in bf16 whose 8 bits would swallow the update,
the thin products are kept apart: one with the A of all adapters of the group, since they read the same input, and
one with the B of each. Adapters of a group share one dropout mask. The products with W may be in int8 while training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from engine.kernels.int8 import Int8Weight


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA of some rows of a group's weight; its rank's columns among those of the whole group.

    s A and B of this step in the weight's precision: (r, in), (out, r).
    """

    rows: slice
    columns: slice
    a: nn.Parameter
    b: nn.Parameter
    scale: float
    scaled_a: Tensor
    rounded_b: Tensor


@dataclass(frozen=True, slots=True)
class Apart:
    """Thin products of a forward pass, x (s A)ᵀ: (tokens, ranks), and the dropout mask of x."""

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

    def __init__(self, modules: list[Any], int8: bool = False) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        self.weight = _joined([base.weight for base in bases])
        self.bias = _joined([base.bias for base in bases])
        self.int8 = Int8Weight(self.weight, self.bias) if int8 else None
        self.int8_back = Int8Weight(self.weight.t()) if int8 else None
        self.adapters: list[Adapter] = []
        self.parts: list[Part] = []
        self.dropout = 0.0
        ranks = [module.r["default"] for module in modules if hasattr(module, "lora_A")]
        self.scaled_a = self.weight.new_empty(sum(ranks), self.weight.shape[1])
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
    def rounded(self) -> list[Adapter]:
        """Adapters whose thin products are kept apart, in training at least."""
        return [] if self._merges and not self.dropout else self.adapters

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
        dropout = self.dropout if training else 0.0
        if self.adapters and self._merges and not dropout:
            return torch.addmm(self.bias, x, self.merge().t()), None
        y = self._frozen(x, training)
        if not self.adapters:
            return y, None
        mask = torch.empty_like(x).bernoulli_(1 - dropout).div_(1 - dropout) if dropout else None
        thin = (x if mask is None else x * mask) @ self.scaled_a.t()
        for adapter in self.adapters:
            y[:, adapter.rows].addmm_(thin[:, adapter.columns], adapter.rounded_b.t())
        return y, Apart(thin, mask)

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
            torch.mm(dy[:, adapter.rows], adapter.rounded_b, out=dthin[:, adapter.columns])
        if dx is not None and apart.mask is None:
            dx.addmm_(dthin, self.scaled_a)
        elif dx is not None and apart.mask is not None:
            dx.addcmul_(dthin @ self.scaled_a, apart.mask)
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
        columns = slice(taken, taken + len(a))
        rounded_b = torch.empty_like(b, dtype=self.weight.dtype)
        return Adapter(rows, columns, a, b, module.scaling["default"], self.scaled_a[columns], rounded_b)

    def _frozen(self, x: Tensor, training: bool) -> Tensor:
        """x: (tokens, in) → x Wᵀ + b: (tokens, out)."""
        if self.int8 and training and _works():
            return self.int8(x)
        return torch.addmm(self.bias, x, self.weight.t())

    def _dx(self, dy: Tensor, residual: Tensor | None, weight: Tensor) -> Tensor:
        if self.int8_back and _works():
            return self.int8_back(dy) if residual is None else self.int8_back.add_to(residual, dy)
        return dy @ weight if residual is None else residual.addmm_(dy, weight)


def _works() -> bool:
    """Whether oneDNN does; see engine.out_of_memory."""
    return bool(torch.backends.mkldnn.enabled)


def round_adapters(adapters: list[Adapter]) -> None:
    """Bring what these adapters keep in the weights' precision up to date."""
    if not adapters:  # torch refuses empty lists
        return
    scaled = [adapter.scaled_a for adapter in adapters]
    rounded = [adapter.rounded_b for adapter in adapters]
    learnt: list[Tensor] = [*(adapter.a for adapter in adapters), *(adapter.b for adapter in adapters)]
    with torch.no_grad():
        torch._foreach_copy_(scaled + rounded, learnt)
        torch._foreach_mul_(scaled, [adapter.scale for adapter in adapters])


def _joined(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor for all; the parameters become views of it, so nothing is stored twice."""
    if len(parameters) == 1:
        return parameters[0].detach()
    joined = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, joined.split([len(parameter) for parameter in parameters]), strict=True):
        parameter.data = part
    return joined
