"""Groups of linear layers on CPUs with VNNI and AVX-512 BF16: weights and adapters as the panels of engine.kernels.low_rank."""

from __future__ import annotations

import os
import struct
from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

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
    """A frozen weight (out, in) in int8, with one scale for each output, as panels of 48 outputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        outputs, width = weight.shape
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
        self.addresses = tuple(part.data_ptr() for part in parts)  # in the order of the kernels' arguments


class PanelGroup:
    """Products of a group with its frozen weight: (out, in) and the adapters of its layers, forward and backward."""

    def __init__(self, weight: Tensor, bias: Tensor, adapters: list[LoraFactors]) -> None:
        self.outputs, self.width = weight.shape
        self.adapters = adapters
        self.weight = PanelWeight(weight, bias)
        self.transposed = PanelWeight(weight.t())
        self.padded_ranks = [rounded_up(len(adapter.a), LANES) for adapter in adapters]
        self.ranks = sum(self.padded_ranks)
        first_ranks = np.cumsum([0, *self.padded_ranks[:-1]])

        # Panels of A and B, written by `pack`; those of B have no adapters' sums but their own.
        self.down = torch.zeros(self.ranks * self.width, dtype=torch.bfloat16)
        self.wide_down = torch.zeros(rounded_up(self.width, PANEL) * self.ranks, dtype=torch.bfloat16)
        self.wide_up = torch.zeros(rounded_up(self.outputs, PANEL) * self.ranks, dtype=torch.bfloat16)
        self.up = [
            torch.zeros(ranks * len(adapter.b), dtype=torch.bfloat16)
            for ranks, adapter in zip(self.padded_ranks, adapters, strict=True)
        ]
        self.all_ranks = torch.tensor([[0, self.ranks // 2]] * (rounded_up(self.width, PANEL) // PANEL))
        self.ranks_of_panels = torch.zeros(rounded_up(self.outputs, PANEL) // PANEL, 2, dtype=torch.int64)
        for panel in range(len(self.ranks_of_panels)):
            own = [
                index
                for index, adapter in enumerate(adapters)
                if adapter.outputs.start < (panel + 1) * PANEL and adapter.outputs.stop > panel * PANEL
            ]
            if own:
                start = int(first_ranks[own[0]])
                stop = int(first_ranks[own[-1]]) + self.padded_ranks[own[-1]]
                self.ranks_of_panels[panel] = torch.tensor([start // 2, (stop - start) // 2])

        # The tables of low_rank; addresses that change are set with each use.
        self.packed = np.zeros((len(adapters), 14), dtype=np.int64)
        self.table = np.zeros((len(adapters), 10), dtype=np.int64)
        sums = self.ranks * rounded_up(self.width, PANEL)
        for index, (adapter, ranks) in enumerate(zip(adapters, self.padded_ranks, strict=True)):
            scale = struct.unpack("q", struct.pack("d", adapter.scale))[0]
            first_rank, first_output, own_outputs = int(first_ranks[index]), adapter.outputs.start, len(adapter.b)
            self.packed[index, 2:] = (
                len(adapter.a), ranks, self.width, own_outputs, self.ranks, first_rank, first_output, scale,
                self.down.data_ptr(), self.wide_down.data_ptr(), self.wide_up.data_ptr(), self.up[index].data_ptr(),
            )  # fmt: skip
            self.table[index] = (
                first_output, own_outputs, first_rank, len(adapter.a), ranks, scale, self.up[index].data_ptr(), 0, 0, sums
            )  # fmt: skip
            sums += ranks * rounded_up(own_outputs, PANEL)
        self.addresses_forward = [each.data_ptr() for each in (self.down, self.wide_up, self.ranks_of_panels)]
        self.addresses_backward = [self.wide_down.data_ptr(), self.all_ranks.data_ptr(), self.table.ctypes.data]
        widest = max(rounded_up(self.width, 4), rounded_up(self.outputs, 4))
        self.scratch_bytes = rounded_up(BYTES_OF_TILES + 4 * BLOCK * self.ranks + BLOCK * widest + 4 * sums, CACHE_LINE)

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
        for index, adapter in enumerate(self.adapters):
            gradients += [torch.empty_like(adapter.a), torch.empty_like(adapter.b)]
            self.table[index, 7:9] = gradients[-2].data_ptr(), gradients[-1].data_ptr()
        kernels().project_gradient(
            0 if dx is None else dx, dy, x, projected, 0 if residual is None else residual, *self.transposed.addresses,
            *self.addresses_backward, len(self.adapters), SCRATCH.take(self.scratch_bytes), self.scratch_bytes,
            len(x), self.width, self.outputs, self.ranks,
            0 if dactive is None else dactive,
        )  # fmt: skip
        return dx, gradients


def pack(groups: list[PanelGroup]) -> None:
    """Write the panels of all adapters after the optimiser has changed A and B."""
    tables = []
    for group in groups:
        group.packed[:, 0] = [adapter.a.data_ptr() for adapter in group.adapters]
        group.packed[:, 1] = [adapter.b.data_ptr() for adapter in group.adapters]
        tables.append(group.packed)
    table = torch.from_numpy(np.concatenate(tables)) if tables else torch.empty(0)
    if len(table):
        kernels().pack_adapters(table, len(table))


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
