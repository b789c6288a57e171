"""Groups of linear layers on CPUs with VNNI and AVX-512 BF16: weights and adapters as the panels of engine.kernels.low_rank."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from engine.kernels.adapter_tables import ADAPTER, FACTORS
from engine.kernels.int8 import LARGEST, MIDDLE, can_compile
from engine.kernels.lora_factors import LoraFactors
from engine.kernels.tile_sizes import BLOCK, LANES, PANEL, ROWS, rounded_up

CACHE_LINE = 64  # bytes
BYTES_OF_TILES = 2 * 4 * ROWS * PANEL + 2 * BLOCK * PANEL + 4 * BLOCK  # two tiles, a strip, the scales of a block


@cache
def has_bf16_products() -> bool:
    """Return whether this CPU has AVX-512 BF16, and the kernels can be compiled for it."""
    if not can_compile():
        return False
    from llvmlite.binding import get_host_cpu_features  # comes with numba

    return bool(get_host_cpu_features().get("avx512bf16"))


@cache
def available() -> bool:
    """Return whether this CPU multiplies bytes by VNNI, and not by AMX, which is faster: oneDNN multiplies there."""
    if not has_bf16_products():
        return False
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return bool(features.get("avx512vnni") and not features.get("amx-int8"))


@cache
def kernels() -> ModuleType:
    """Return the compiled kernels."""
    from engine.kernels import low_rank  # deferred: imports numba and compiles

    return low_rank


class PanelWeight:
    """A frozen weight (out, in) in int8, with one scale for each output, as panels of 48 outputs.

    smoothing: what the channels of its input are divided by, (in,); see engine.kernels.smoothing.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, smoothing: Tensor | None = None) -> None:
        outputs, width = weight.shape
        if smoothing is not None:
            weight = weight * smoothing
        missing = -outputs % PANEL
        smallest = torch.finfo(torch.float32).tiny  # an output of zeros must not divide by zero
        scales = (weight.abs().amax(1).float() / LARGEST).clamp_min(smallest)
        quantised = weight.float().div_(scales[:, None]).round_().to(torch.int8)
        padded = pad(quantised, (0, -width % 4, 0, missing))
        self.scales = pad(scales, (0, missing))
        self.corrections = padded.sum(1, dtype=torch.int32).mul_(-MIDDLE)  # activations are bytes around MIDDLE
        self.bias = torch.zeros(outputs + missing) if bias is None else pad(bias.float(), (0, missing))
        by_panel = padded.view(-1, PANEL, padded.shape[1] // 4, 4)
        self.panels = by_panel.transpose(1, 2).contiguous()
        parts = (self.panels, self.scales, self.corrections, self.bias)
        self.factors = None if smoothing is None else 1 / smoothing
        factors = 0 if self.factors is None else self.factors.data_ptr()
        self.addresses = (*(part.data_ptr() for part in parts), factors)  # in the order of the kernels' arguments


class PanelGroup:
    """Products of a group with its frozen weight: (out, in) and the adapters of its layers, forward and backward."""

    def __init__(
        self, weight: Tensor, bias: Tensor, adapters: list[LoraFactors], smoothing: Tensor | None = None
    ) -> None:
        self.outputs, self.width = weight.shape
        self.adapters = adapters
        self.weight = PanelWeight(weight, bias, smoothing)
        self.transposed = PanelWeight(weight.t())
        self.padded_ranks = [rounded_up(len(adapter.a), LANES) for adapter in adapters]
        self.ranks = sum(self.padded_ranks)
        padded_width, padded_outputs = rounded_up(self.width, PANEL), rounded_up(self.outputs, PANEL)

        # Panels of A and B, written by `pack`; `up` has those of each B alone.
        self.down = torch.zeros(self.ranks * self.width, dtype=torch.bfloat16)
        self.wide_down = torch.zeros(padded_width * self.ranks, dtype=torch.bfloat16)
        self.wide_up = torch.zeros(padded_outputs * self.ranks, dtype=torch.bfloat16)
        self.up = [
            torch.zeros(ranks * len(adapter.b), dtype=torch.bfloat16)
            for ranks, adapter in zip(self.padded_ranks, adapters, strict=True)
        ]
        self.all_ranks = torch.tensor([[0, self.ranks // 2]] * (padded_width // PANEL))
        self.ranks_of_panels = self._ranks_of_panels(padded_outputs // PANEL)

        # A thread's sums: dA of all adapters, then dB of each.
        outputs_of_sums = [rounded_up(len(adapter.b), PANEL) for adapter in adapters]
        sizes = [ranks * outputs for ranks, outputs in zip(self.padded_ranks, outputs_of_sums, strict=True)]
        first_sums = np.cumsum([self.ranks * padded_width, *sizes])
        self.table = self._table(ADAPTER)
        self.table["first_sum"] = first_sums[:-1]
        self.factors = self._table(FACTORS)
        self.factors["width"] = self.width
        self.factors["ranks"] = self.ranks
        self.factors["down"] = self.down.data_ptr()
        self.factors["wide_down"] = self.wide_down.data_ptr()
        self.factors["wide_up"] = self.wide_up.data_ptr()

        self.addresses_forward = [each.data_ptr() for each in (self.down, self.wide_up, self.ranks_of_panels)]
        self.addresses_backward = [self.wide_down.data_ptr(), self.all_ranks.data_ptr(), self.table.ctypes.data]
        bytes_of_block = BLOCK * rounded_up(max(self.width, self.outputs), 4) + 4 * BLOCK * self.ranks
        self.scratch_bytes = rounded_up(BYTES_OF_TILES + bytes_of_block + 4 * int(first_sums[-1]), CACHE_LINE)

    def _ranks_of_panels(self, panels: int) -> Tensor:
        """Return the first pair of ranks that each panel of outputs needs, and their number: (panels, 2)."""
        pairs = torch.zeros(panels, 2, dtype=torch.int64)
        ends = np.cumsum(self.padded_ranks)
        for panel in range(panels):
            start, stop = panel * PANEL, (panel + 1) * PANEL
            own = [
                index
                for index, adapter in enumerate(self.adapters)
                if adapter.outputs.start < stop and adapter.outputs.stop > start
            ]
            if own:
                first_rank = int(ends[own[0]]) - self.padded_ranks[own[0]]
                pairs[panel] = torch.tensor([first_rank // 2, (int(ends[own[-1]]) - first_rank) // 2])
        return pairs

    def _table(self, row: np.dtype[np.void]) -> np.ndarray:
        """Return a table of the adapters for the kernels. What changes (a, b, da, db) is set with each use."""
        table = np.zeros(len(self.adapters), dtype=row)
        table["first_output"] = [adapter.outputs.start for adapter in self.adapters]
        table["outputs"] = [len(adapter.b) for adapter in self.adapters]
        table["first_rank"] = np.cumsum([0, *self.padded_ranks[:-1]])
        table["rank"] = [len(adapter.a) for adapter in self.adapters]
        table["padded_rank"] = self.padded_ranks
        table["up"] = [panels.data_ptr() for panels in self.up]
        table["scale"] = [adapter.scale for adapter in self.adapters]
        return table

    @staticmethod
    def covers(weight: Tensor, adapters: list[LoraFactors]) -> bool:
        """Return whether there are adapters, for which the kernels are made, and all sizes are even: pairs are multiplied."""
        has_even_sizes = weight.shape[1] % 2 == 0 and all(
            adapter.outputs.start % 2 == 0 and len(adapter.b) % 2 == 0 for adapter in adapters
        )
        return bool(adapters) and has_even_sizes

    def forward(self, x: Tensor, residual: Tensor | None = None, active: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y: (tokens, out) for x: (tokens, in), and what `backward` needs beside x. active: gets SwiGLU of y."""
        y = x.new_empty(len(x), self.outputs)
        projected = x.new_empty(len(x), self.ranks)
        kernels().project(
            y, x, projected, 0 if residual is None else residual, *self.weight.addresses, *self.addresses_forward,
            SCRATCH.take(self.scratch_bytes), self.scratch_bytes,
            len(x), self.width, self.outputs, self.ranks, 0 if active is None else active,
        )  # fmt: skip
        return y, projected

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        projected: Tensor,
        residual: Tensor | None,
        needs_dx: bool,
        dactive: Tensor | None = None,
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return dx: (tokens, in), written over the residual if there is one, and the gradients of each A and B.

        dactive: the gradient of SwiGLU of y, which is passed as dy and overwritten by its gradient.
        """
        dx = None
        if needs_dx:
            dx = torch.empty_like(x) if residual is None else residual
        gradients: list[Tensor] = []
        for adapter in self.adapters:
            gradients += [torch.empty_like(adapter.a), torch.empty_like(adapter.b)]
        self.table["da"] = [gradient.data_ptr() for gradient in gradients[::2]]
        self.table["db"] = [gradient.data_ptr() for gradient in gradients[1::2]]
        kernels().project_gradient(
            0 if dx is None else dx, dy, x, projected, 0 if residual is None else residual, *self.transposed.addresses,
            *self.addresses_backward, len(self.adapters), SCRATCH.take(self.scratch_bytes), self.scratch_bytes,
            len(x), self.width, self.outputs, self.ranks,
            0 if dactive is None else dactive,
        )  # fmt: skip
        return dx, gradients


def pack(groups: list[PanelGroup]) -> None:
    """Write the panels of all adapters after the optimiser has changed A and B."""
    if not groups:
        return
    for group in groups:
        group.factors["a"] = [adapter.a.data_ptr() for adapter in group.adapters]
        group.factors["b"] = [adapter.b.data_ptr() for adapter in group.adapters]
    # As bytes: numpy compares the fields of structured arrays, in Python, one group after another.
    table = np.concatenate([group.factors.view(np.uint8) for group in groups])
    kernels().pack_adapters(table.ctypes.data, len(table) // FACTORS.itemsize)


class Scratch:
    """Room for what threads compute on the way, kept for the next kernel: fresh memory costs a fault for each of its pages."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._cores = os.cpu_count() or 1

    def take(self, bytes_per_thread: int) -> Tensor:
        """Return room for each thread that may compute."""
        needed = bytes_per_thread * max(self._cores, torch.get_num_threads())
        if self._bytes.nbytes < needed:
            self._bytes = torch.empty(needed, dtype=torch.uint8)
        return self._bytes


SCRATCH = Scratch()
