"""An adapter over a shared base model: low-rank updates of its projections, and a head.

y = x Wᵀ + b + (x a) b'      a = Aᵀ: (in, r)      b' = s Bᵀ: (r, out)      (LoRA, arXiv 2106.09685)
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, slots=True)
class UpdateShape:
    """The sizes of a projection's update. It has a pair of matrices for each linear module that the adapter changes.

    inputs: numbers in a row of x. columns: each pair's columns of y. ranks: each pair's rank.
    """

    inputs: int
    columns: tuple[slice, ...]
    ranks: tuple[int, ...]

    def unpack(self, flat: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return views of `flat`: (..., numbers): a of all pairs, (..., inputs, all ranks), and b of each: (..., rank, out)."""
        outputs = [columns.stop - columns.start for columns in self.columns]
        sizes = [rank * count for rank, count in zip(self.ranks, outputs, strict=True)]
        a, *pieces = flat.split([self.inputs * sum(self.ranks), *sizes], -1)
        b_of_pair = [piece.unflatten(-1, (rank, -1)) for piece, rank in zip(pieces, self.ranks, strict=True)]
        return a.unflatten(-1, (self.inputs, -1)), b_of_pair


class ProjectionUpdate:
    """An adapter's update of linear modules with the same input. flat: all its numbers, in the order of UpdateShape."""

    def __init__(self, shape: UpdateShape, flat: Tensor) -> None:
        self.shape = shape
        self.flat = flat
        self.a, self.b_of_pair = shape.unpack(flat)
        starts = [sum(shape.ranks[:count]) for count in range(len(shape.ranks) + 1)]
        self.rank_slices = [slice(start, end) for start, end in pairwise(starts)]

    @cached_property
    def a_rows(self) -> Tensor:
        """Return a of all pairs for the compiled kernel, which reads along its rows: (all ranks, inputs)."""
        return self.a.t().contiguous()

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the update to y: (rows, out) for x: (rows, in)."""
        # One product with all pairs' a is fewer launches for a GPU. A CPU is slower to multiply slices of it.
        projected = x @ self.a if x.is_cuda else None
        for columns, ranks, b in zip(self.shape.columns, self.rank_slices, self.b_of_pair, strict=True):
            low_rank = x @ self.a[:, ranks] if projected is None else projected[:, ranks]
            y[:, columns].addmm_(low_rank, b)


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """One linear layer of a head, and the name of the activation after it. weight: (out, in)."""

    weight: Tensor
    bias: Tensor
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layer's output: (texts, out) for x: (texts, in)."""
        return self.activate(linear(x, self.weight, self.bias))

    def activate(self, y: Tensor) -> Tensor:
        """Return what follows the linear layer's output."""
        return getattr(torch, self.activation)(y) if self.activation else y


class ServedAdapter:
    """What a training run has learnt, in memory.

    updates: by the name of the projection. Adapters with the same `layout` have updates of the same shapes, and those with
    the same `head_layout` have heads of the same shapes: they can be stacked.
    """

    def __init__(self, updates: dict[str, ProjectionUpdate], head: list[HeadLayer]) -> None:
        self.updates = updates
        self.head = head
        # Texts are sorted by them: the same object for equal layouts makes that fast.
        self.layout = sys.intern(repr([(name, update.shape) for name, update in updates.items()]))
        self.head_layout = sys.intern(repr([tuple(layer.weight.shape) for layer in head]))

    def classify(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits: (texts, labels), and what the last layer reads: (texts, width), for the texts' first tokens."""
        features = first
        for layer in self.head[:-1]:
            features = layer(features)
        return self.head[-1](features), features


class SequenceAdapter(ServedAdapter):
    """An adapter over a language model, or none. owner: what its sequences share blocks of the cache by, with no other one's."""

    def __init__(self, updates: dict[str, ProjectionUpdate]) -> None:
        super().__init__(updates, [])
        self.owner = os.urandom(16)
