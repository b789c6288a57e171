"""The trained matrices of one linear layer, as groups of layers pass them to kernels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """The trained A: (r, in) and B: (out, r) of one linear layer in a group.

    outputs: the layer's outputs among those of the group.
    ranks: the rows of A among those of all adapters of the group.
    scaled_a, rounded_b: s A and B in the precision of W, as of this step; see `take_over_adapters`.
    """

    outputs: slice
    ranks: slice
    a: nn.Parameter
    b: nn.Parameter
    scale: float
    scaled_a: Tensor
    rounded_b: Tensor
