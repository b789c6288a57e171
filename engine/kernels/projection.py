"""Linear layers with LoRA that share one input, as one matrix product.

    y = x (W + s B A)ᵀ + b          W: (out, in) frozen   A: (r, in)   B: (out, r)   s: scale   (arXiv 2106.09685)

There are two ways to compute it:

- Merged, in fp32 without dropout: W + s B A is written to a scratch weight before each product. That is one matrix product per
  pass instead of three, for out · in · r more multiplications.
- Low rank, with dropout or in bf16, whose 8 bits would round the update away: x Wᵀ + (x (s A)ᵀ) Bᵀ. The adapters of a group
  read the same input, so the product with A is one for all of them, and they share one dropout mask.

The products with W can be in int8 in training steps; without dropout, one compiled kernel each way computes all of the group then,
where the CPU has its instructions (engine.kernels.panels). The gradients of A and B need no gradient of W:

    dB = s dyᵀ (x Aᵀ)        dA = s (dy B)ᵀ x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from engine.kernels import panels
from engine.kernels.int8 import Int8Weight, kernels
from engine.kernels.lora_factors import LoraFactors
from engine.kernels.panels import PanelGroup
from engine.kernels.smoothing import Magnitudes, find_smoothing


@dataclass(frozen=True, slots=True)
class LowRankActivations:
    """What a forward pass keeps for the gradients of A and B.

    projected: x (s A)ᵀ: (tokens, ranks of the group). mask: dropout's factors of x, (tokens, in).
    """

    projected: Tensor
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One linear layer of a group, for few rows and without dropout; torch computes its gradients."""

    weight: Tensor
    bias: Tensor
    adapter: LoraFactors | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return x (W + s B A)ᵀ + b: (rows, out)."""
        y = linear(x, self.weight, self.bias)
        if self.adapter is None:
            return y
        scaled_a, b = _factors(self.adapter, x.dtype)
        return y + linear(linear(x, scaled_a), b)

    def by_head(self, x: Tensor, heads: int) -> Tensor:
        """Return x (W + s B A)ᵀ, each head with its own rows of W and B: (heads, rows, in) → (heads, rows, out / heads)."""
        y = x @ _split_rows(self.weight, heads).transpose(1, 2)
        if self.adapter is None:
            return y
        scaled_a, b = _factors(self.adapter, x.dtype)
        return y + (x @ scaled_a.t()) @ _split_rows(b, heads).transpose(1, 2)

    def transposed_by_head(self, y: Tensor, heads: int) -> Tensor:
        """Return y (W + s B A), each head with its own rows of W and B: (heads, rows, out / heads) → (heads, rows, in)."""
        x = y @ _split_rows(self.weight, heads)
        if self.adapter is None:
            return x
        scaled_a, b = _factors(self.adapter, y.dtype)
        return x + (y @ _split_rows(b, heads)) @ scaled_a


def _factors(adapter: LoraFactors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return s A and B in a precision, with their gradients."""
    return (adapter.a * adapter.scale).to(dtype), adapter.b.to(dtype)


def _split_rows(weight: Tensor, heads: int) -> Tensor:
    """Return (heads, out / heads, in) for (out, in)."""
    return weight.view(heads, -1, weight.shape[1])


class ProjectionGroup:
    """Linear layers with the same input: query, key and value, or a single one. weight: (out, in); bias: (out,).

    magnitudes: how large this input is, from which int8 is smoothed.
    """

    def __init__(self, modules: Sequence[Any], int8: bool = False, magnitudes: Magnitudes | None = None) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        self.weight = join_parameters([base.weight for base in bases])
        biases = [base.bias for base in bases if base.bias is not None]
        # Decoders have linear layers without a bias: a bias of zeros costs nothing beside the product.
        self.bias = join_parameters(biases) if biases else self.weight.new_zeros(len(self.weight))
        adapted = [module for module in modules if hasattr(module, "lora_A")]  # PEFT's LoRA layers
        dropouts = [getattr(module.lora_dropout["default"], "p", 0.0) for module in adapted]  # Identity has no p
        self.dropout = max(map(float, dropouts), default=0.0)
        self.scaled_a = self.weight.new_empty(sum(module.r["default"] for module in adapted), self.weight.shape[1])
        self.adapters: list[LoraFactors] = []
        self.members: list[GroupMember] = []
        first_output = 0
        first_rank = 0
        for module, base in zip(modules, bases, strict=True):
            outputs = slice(first_output, first_output + len(base.weight))
            first_output = outputs.stop
            adapter = None
            if hasattr(module, "lora_A"):
                a = module.lora_A["default"].weight
                b = module.lora_B["default"].weight
                ranks = slice(first_rank, first_rank + len(a))
                first_rank = ranks.stop
                scale = module.scaling["default"]
                rounded_b = torch.empty_like(b, dtype=self.weight.dtype)
                adapter = LoraFactors(outputs, ranks, a, b, scale, self.scaled_a[ranks], rounded_b)
                self.adapters.append(adapter)
            self.members.append(GroupMember(self.weight[outputs], self.bias[outputs], adapter))
        self.panels: PanelGroup | None = None
        self.int8: Int8Weight | None = None
        self.int8_transposed: Int8Weight | None = None
        smoothing = find_smoothing(magnitudes or {}, bases[0], self.weight)
        if int8 and panels.available() and not self.dropout and PanelGroup.covers(self.weight, self.adapters):
            self.panels = PanelGroup(self.weight, self.bias, self.adapters, smoothing)
        elif int8:
            self.int8 = Int8Weight(self.weight, self.bias, smoothing)
            self.int8_transposed = Int8Weight(self.weight.t())
        self.can_merge = self.weight.dtype == torch.float32
        self.merged = self.weight
        if self.adapters and self.can_merge:
            self.merged = self.weight.clone(memory_format=torch.contiguous_format)

    @property
    def rounded_adapters(self) -> list[LoraFactors]:
        """Return the adapters that are computed as low-rank products, at least in training."""
        return [] if self.can_merge and not self.dropout else self.adapters

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return A and B of each adapter, in the order of the gradients that `backward` returns."""
        return [parameter for adapter in self.adapters for parameter in (adapter.a, adapter.b)]

    def forward(
        self, x: Tensor, training: bool, residual: Tensor | None = None
    ) -> tuple[Tensor, LowRankActivations | None]:
        """Return y: (tokens, out) for x: (tokens, in), with `residual` added, and what `backward` needs beside x."""
        if self.panels is not None and training:
            y, projected = self.panels.forward(x, residual)
            return y, LowRankActivations(projected, None)
        y, low_rank = self._forward(x, training)
        return y if residual is None else y.add_(residual), low_rank

    def forward_swiglu(self, x: Tensor) -> tuple[Tensor, Tensor, LowRankActivations | None]:
        """Return gate and up side by side: (tokens, out), SwiGLU of them: (tokens, out / 2), and what `backward_swiglu` needs."""
        active = x.new_empty(len(x), len(self.weight) // 2)
        if self.panels is not None:
            gate_up, projected = self.panels.forward(x, active=active)
            return gate_up, active, LowRankActivations(projected, None)
        gate_up, low_rank = self._forward(x, training=True)
        kernels().swiglu(active, gate_up, *active.shape)
        return gate_up, active, low_rank

    def backward_swiglu(
        self, dactive: Tensor, gate_up: Tensor, x: Tensor, low_rank: LowRankActivations | None
    ) -> tuple[Any, list[Tensor]]:
        """Return what `backward` does, for the gradient of SwiGLU; gate_up is overwritten by its gradient."""
        if self.panels is not None and low_rank is not None:
            return self.panels.backward(gate_up, x, low_rank.projected, None, True, dactive)
        kernels().swiglu_gradient(gate_up, dactive, *dactive.shape)
        return self.backward(gate_up, x, low_rank, None, needs_dx=True)

    def _forward(self, x: Tensor, training: bool) -> tuple[Tensor, LowRankActivations | None]:
        dropout = self.dropout if training else 0.0
        if self.adapters and self.can_merge and not dropout:
            for adapter in self.adapters:
                weight = self.weight[adapter.outputs]
                merged = self.merged[adapter.outputs]
                torch.addmm(weight, adapter.b.detach(), adapter.a.detach(), alpha=adapter.scale, out=merged)
            return torch.addmm(self.bias, x, self.merged.t()), None
        int8 = self.int8 if training and _onednn_works() else None
        y = torch.addmm(self.bias, x, self.weight.t()) if int8 is None else int8(x)
        if not self.adapters:
            return y, None
        mask = torch.empty_like(x).bernoulli_(1 - dropout).div_(1 - dropout) if dropout else None
        projected = (x if mask is None else x * mask) @ self.scaled_a.t()
        for adapter in self.adapters:
            y[:, adapter.outputs].addmm_(projected[:, adapter.ranks], adapter.rounded_b.t())
        return y, LowRankActivations(projected, mask)

    def backward(
        self, dy: Tensor, x: Tensor, low_rank: LowRankActivations | None, residual: Tensor | None, needs_dx: bool
    ) -> tuple[Any, list[Tensor]]:
        """Return dx: (tokens, in), or None where it is not needed, and the gradients of `parameters`.

        dx = dy (W + s B A) + residual, the gradient that reaches x on another path; it is written over `residual`.
        """
        if self.panels is not None and low_rank is not None:
            return self.panels.backward(dy, x, low_rank.projected, residual, needs_dx)
        dx = None
        if needs_dx:
            weight = self.merged if low_rank is None else self.weight
            int8 = self.int8_transposed if _onednn_works() else None
            if residual is None:
                dx = dy @ weight if int8 is None else int8(dy)
            else:
                dx = residual.addmm_(dy, weight) if int8 is None else int8.add_to(residual, dy)
        if not self.adapters:
            return dx, []
        if low_rank is not None:
            return dx, self._low_rank_gradients(dy, x, low_rank, dx)
        # Merged: dA = (dy (s B))ᵀ x and dB = dyᵀ (x (s A)ᵀ), each with the adapter's own columns of dy.
        gradients: list[Tensor] = []
        for adapter in self.adapters:
            own_dy = dy[:, adapter.outputs]
            gradients.append((own_dy @ (adapter.b * adapter.scale)).t() @ x)
            gradients.append(own_dy.t() @ (x @ (adapter.a * adapter.scale).t()))
        return dx, gradients

    def _low_rank_gradients(
        self, dy: Tensor, x: Tensor, low_rank: LowRankActivations, dx: Tensor | None
    ) -> list[Tensor]:
        """Return the gradients of A and B, and add the adapters' part to dx. With the dropout mask m and p = (m x) (s A)ᵀ:

        dp = dy B        dx += m (dp (s A))        dA = s dpᵀ (m x)        dB = dyᵀ p
        """
        mask = low_rank.mask
        dprojected = torch.empty_like(low_rank.projected)
        for adapter in self.adapters:
            torch.mm(dy[:, adapter.outputs], adapter.rounded_b, out=dprojected[:, adapter.ranks])
        if dx is not None and mask is None:
            dx.addmm_(dprojected, self.scaled_a)
        elif dx is not None and mask is not None:
            dx.addcmul_(dprojected @ self.scaled_a, mask)
        da = (dprojected.t() @ (x if mask is None else x * mask)).float()
        gradients: list[Tensor] = []
        for adapter in self.adapters:
            gradients.append(da[adapter.ranks] * adapter.scale)
            gradients.append((dy[:, adapter.outputs].t() @ low_rank.projected[:, adapter.ranks]).float())
        return gradients


def _onednn_works() -> bool:
    """Return False after oneDNN ran out of memory once; engine.out_of_memory turns it off then."""
    return bool(torch.backends.mkldnn.enabled)


def take_over_adapters(groups: list[ProjectionGroup], training: bool) -> None:
    """Take over what the optimiser has changed of A and B: as panels for training steps, and rounded to the weights' precision.

    One call for all layers: torch's foreach operations take one dispatch for all tensors instead of two for each.
    """
    if training:
        panels.pack([group.panels for group in groups if group.panels is not None])
    adapters = [
        adapter for group in groups if group.panels is None or not training for adapter in group.rounded_adapters
    ]
    if not adapters:  # torch refuses empty lists
        return
    scaled = [adapter.scaled_a for adapter in adapters]
    rounded = [adapter.rounded_b for adapter in adapters]
    trained: list[Tensor] = [*(adapter.a for adapter in adapters), *(adapter.b for adapter in adapters)]
    with torch.no_grad():
        torch._foreach_copy_(scaled + rounded, trained)
        torch._foreach_mul_(scaled, [adapter.scale for adapter in adapters])


def join_parameters(parameters: list[nn.Parameter]) -> Tensor:
    """Concatenate parameters into one tensor of which they become views, so that nothing is stored twice.

    They are joined in their first dimension. The tensor has no gradient, as the parameters are frozen.
    """
    if len(parameters) == 1:
        return parameters[0].detach()
    joined = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, view in zip(parameters, joined.split([len(parameter) for parameter in parameters]), strict=True):
        parameter.data = view
    return joined
