"""The linear layers of a served language model: a frozen weight, and the low-rank update of each row's own adapter."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain, repeat
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from engine.serve.adapter import ServedAdapter
from engine.serve.mixed_batch import split_batch


class AdapterOfRows:
    """Whose the rows of products are. adapters: of each sequence, equal ones beside each other; lengths: its rows.

    key: what is equal for equal rows.
    """

    def __init__(
        self, key: Hashable, adapters: Sequence[ServedAdapter], lengths: Sequence[int], device: torch.device
    ) -> None:
        self.key = key
        self.parts = split_batch(adapters, [each.layout for each in adapters], lengths, torch.inf, device)
        self.of_row = list(chain.from_iterable(map(repeat, adapters, lengths)))
        ranks = [update.a.shape[1] for adapter in adapters for update in adapter.updates.values()]
        self.most_ranks = max(ranks, default=1)
        self._addresses: dict[str, Tensor | None] = {}

    def addresses(self, name: str) -> Tensor | None:
        """Return where the compiled kernel finds each row's update of a layer: (rows, 3); None if no adapter changes it."""
        if name not in self._addresses:
            rows = [(0, 0, 0)] * len(self.of_row)
            for index, adapter in enumerate(self.of_row):
                update = adapter.updates.get(name)
                if update is not None:
                    rows[index] = (update.a_rows.data_ptr(), update.b_of_pair[0].data_ptr(), update.a.shape[1])
            self._addresses[name] = torch.tensor(rows) if any(row[2] for row in rows) else None
        return self._addresses[name]


class CurrentRows:
    """What all layers of a model compute now; the model sets it before each product of other rows."""

    rows: AdapterOfRows


class FrozenLinear(nn.Module):
    """Takes the place of a linear layer. weight: (out, in), in bf16 if kernels are given and that loses nothing, else in fp32."""

    def __init__(
        self, name: str, weight: Tensor, bias: Tensor | None, current: CurrentRows, kernels: ModuleType | None
    ) -> None:
        super().__init__()
        self.name = name
        self.outputs, self.inputs = weight.shape
        self.columns = {name: slice(0, self.outputs)}
        self.current = current
        rounded = weight.to(torch.bfloat16)
        self.kernels: Any = kernels if torch.equal(rounded.to(weight.dtype), weight) else None
        self.weight = (weight.float() if self.kernels is None else rounded).contiguous()
        self.bias = None if bias is None else bias.detach().float().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + bias with each row's update: (…, out) for x: (…, in), in fp32."""
        flat = x.reshape(-1, self.inputs)
        if self.kernels is not None and len(flat) <= self.kernels.MOST_ROWS:
            y = self._multiply_few(flat.contiguous())
        else:
            y = linear(flat, self.weight.float(), self.bias)
            for part in self.current.rows.parts:
                part.add_update(y, flat, self.name)
        return y.view(*x.shape[:-1], self.outputs)

    def _multiply_few(self, x: Tensor) -> Tensor:
        rows = self.current.rows
        y = torch.empty(len(x), self.outputs)
        addresses = rows.addresses(self.name)
        self.kernels.multiply(
            y,
            x,
            self.weight,
            0 if self.bias is None else self.bias,
            0 if addresses is None else self.kernels.scratch(rows.most_ranks),
            0 if addresses is None else addresses,
            len(x),
            self.inputs,
            self.outputs,
            rows.most_ranks,
        )
        return y


def replace_linear_layers(model: nn.Module, current: CurrentRows, kernels: ModuleType | None) -> list[FrozenLinear]:
    """Put a FrozenLinear in the place of each linear layer of a language model, also of GPT-2's Conv1D; return them."""
    from transformers.pytorch_utils import Conv1D  # deferred: takes seconds

    replaced = []
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | Conv1D):
            weight: Any = module.weight.detach()
            weight = weight.t() if isinstance(module, Conv1D) else weight
            layer = FrozenLinear(name, weight, module.bias, current, kernels)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer)
            replaced.append(layer)
    return replaced
