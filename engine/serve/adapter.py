"""An adapter over a shared base model: low-rank updates by the path of the linear module that they add to, and a head.

y = x Wᵀ + b + (x a) b'      a = Aᵀ: (in, r)      b' = s Bᵀ: (r, out)      (LoRA, arXiv 2106.09685)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The update of one linear module. a: (in, rank); b: (rank, out), scaled."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """One linear layer of a head, and the name of the activation after it. weight: (out, in)."""

    weight: Tensor
    bias: Tensor
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layer's output: (texts, out) for x: (texts, in)."""
        y = linear(x, self.weight, self.bias)
        return getattr(torch, self.activation)(y) if self.activation else y


@dataclass(frozen=True, slots=True, eq=False)
class ServedAdapter:
    """What a training run has learnt, in memory."""

    pairs: dict[str, LoraPair]
    head: list[HeadLayer]

    def classify(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits: (texts, labels), and what the last layer reads: (texts, width), for the texts' first tokens."""
        features = first
        for layer in self.head[:-1]:
            features = layer(features)
        return self.head[-1](features), features
