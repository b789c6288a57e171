"""The frozen head of a language model in training steps on CPUs with VNNI: its logits, and where it pays its gradients, in int8."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import pad

from engine.kernels import panels
from engine.kernels.int8 import LARGEST, Int8Weight, kernels
from engine.kernels.tile_sizes import HEAD_BLOCK, HEAD_ROWS, PANEL, rounded_up


class Int8Head:
    """A frozen head (vocabulary, width) bf16 without a bias. smoothing: what the channels of states are divided by, (width,)."""

    def __init__(self, weight: Tensor, smoothing: Tensor | None) -> None:
        self.weight = weight.contiguous()
        self.logits = Int8Weight(weight, smoothing=smoothing)
        self.blocks = panels_of_blocks(weight) if panels.available() else None

    def log_probabilities_with_gradients(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each target: (targets,) fp32, and its gradient by the state: (targets, width) bf16."""
        logits = self.logits(states)
        losses = torch.empty(len(states))
        if self.blocks is None:  # torch multiplies in bf16: one scale for a row would lose most of its probabilities
            kernels().cross_entropy(logits, losses, targets, *logits.shape)
            return -losses, (logits @ self.weight).neg_()
        gradients = torch.empty_like(states)
        # What a thread needs for its Room in engine.kernels.head_gradient.
        sums = 4 * HEAD_ROWS * rounded_up(states.shape[1], PANEL)
        room = rounded_up(sums + 16 * HEAD_ROWS + HEAD_ROWS * HEAD_BLOCK, panels.CACHE_LINE)
        head_gradient().cross_entropy_with_gradient(
            losses, gradients, logits, targets, self.weight, *self.blocks, panels.SCRATCH.take(room), room, *logits.shape,
            states.shape[1],
        )  # fmt: skip
        return -losses, gradients


def panels_of_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a head in int8 for sums over blocks of its vocabulary, and the scales of the columns of each block.

    weight: (vocabulary, width); scales: (blocks, width) fp32, as wide as whole panels.
    """
    vocabulary, width = weight.shape
    padded = pad(weight.float(), (0, -width % PANEL, 0, -vocabulary % HEAD_BLOCK))
    blocks = padded.view(-1, HEAD_BLOCK, padded.shape[1])
    smallest = torch.finfo(torch.float32).tiny  # a column of zeros must not divide by zero
    scales = (blocks.abs().amax(1) / LARGEST).clamp_min(smallest)
    quantised = blocks.div(scales[:, None]).round_().to(torch.int8)
    # Of each panel of 48 columns, four tokens of the vocabulary beside each other for each step of the sum.
    by_panel = quantised.view(len(blocks), HEAD_BLOCK // 4, 4, -1, PANEL).permute(0, 3, 1, 4, 2)
    return by_panel.contiguous(), scales.contiguous()


@cache
def head_gradient() -> ModuleType:
    """Return the compiled kernels."""
    from engine.kernels import head_gradient as compiled  # deferred: imports numba and compiles

    return compiled
