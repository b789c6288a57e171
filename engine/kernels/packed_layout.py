"""Compute once what packed conversations begin with in common: a system prompt, or the prompt of a chosen and a rejected answer.

In a causal model the state of a token depends on the tokens up to it alone, so conversations that begin alike share those states,
and a shared token's gradient is the sum over all that it stands for. Only attention needs every conversation whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# The share of computed tokens up to which sharing pays: it costs copies in attention.
MOST_COMPUTED = 0.97


class Sharing(NamedTuple):
    """Which computed token stands for which tokens.

    computed: (tokens,) int64, for each token the computed one. places: (computed tokens,) int64, of each the first token that it
    stands for. copies: (copies,) int64, the tokens that are not the first. shared: (shared,) int64, the computed tokens that they
    share; slots: (copies,) int64, of each copy its place in `shared`.
    """

    computed: Tensor
    places: Tensor
    copies: Tensor
    shared: Tensor
    slots: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PackedLayout:
    """Packed conversations, and which of their tokens are computed: all, or with `sharing` one for those that begin alike.

    lengths: tokens of each conversation.
    """

    lengths: list[int]
    sharing: Sharing | None = None

    def to_all(self, x: Tensor, dim: int = 0) -> Tensor:
        """Return what belongs to all tokens, of what belongs to computed ones along `dim`."""
        return x if self.sharing is None else x.index_select(dim, self.sharing.computed)

    def to_computed(self, x: Tensor, dim: int = 0) -> Tensor:
        """Return what belongs to computed tokens, of what belongs to all along `dim` and is equal for those that share one."""
        return x if self.sharing is None else x.index_select(dim, self.sharing.places)

    def computed_tokens(self) -> Tensor:
        """Return the computed token of each token: (tokens,)."""
        return torch.arange(sum(self.lengths)) if self.sharing is None else self.sharing.computed

    def first_tokens(self) -> Tensor:
        """Return of each conversation how many of its first tokens one before it has computed: (conversations,)."""
        if self.sharing is None:
            return torch.zeros(len(self.lengths), dtype=torch.int64)
        conversations = torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))
        return torch.bincount(conversations[self.sharing.copies], minlength=len(self.lengths))

    def gradient_to_computed(self, dx: Tensor) -> Tensor:
        """Return the gradient of what `to_all` took: (computed tokens, width), for shared tokens a sum, in fp32."""
        if self.sharing is None:
            return dx
        computed = self.to_computed(dx)
        sums = computed.index_select(0, self.sharing.shared).float()
        sums.index_add_(0, self.sharing.slots, dx.index_select(0, self.sharing.copies).float())
        return computed.index_copy_(0, self.sharing.shared, sums.to(dx.dtype))

    def to(self, device: torch.device) -> PackedLayout:
        """Return the same on a device."""
        if self.sharing is None:
            return self
        return PackedLayout(self.lengths, Sharing(*(each.to(device) for each in self.sharing)))


def share_prefixes(ids: Tensor, lengths: list[int]) -> PackedLayout:
    """Return a layout that computes once what conversations begin with in common. ids: (tokens,), end to end."""
    conversations = np.split(ids.numpy(), np.cumsum(lengths)[:-1])
    computed = [np.empty(0, np.int64)] * len(conversations)
    count = 0
    before = before_computed = np.empty(0, np.int64)
    # In this order, each shares as much with its neighbour as with any before.
    for index in sorted(range(len(conversations)), key=lambda each: conversations[each].tolist()):
        own = conversations[index]
        common = common_length(own, before)
        own_computed = np.arange(count - common, count - common + len(own))
        own_computed[:common] = before_computed[:common]
        computed[index] = own_computed
        count += len(own) - common
        before, before_computed = own, own_computed
    of_all = np.concatenate(computed)
    if count > MOST_COMPUTED * len(of_all):
        return PackedLayout(lengths)
    places = np.unique(of_all, return_index=True)[1]
    copies = np.delete(np.arange(len(of_all)), places)
    shared, slots = np.unique(of_all[copies], return_inverse=True)
    return PackedLayout(lengths, Sharing(*map(torch.from_numpy, (of_all, places, copies, shared, slots))))


def common_length(first: np.ndarray, second: np.ndarray) -> int:
    """Return how many numbers two arrays begin with in common."""
    shorter = min(len(first), len(second))
    differing = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differing[0]) if len(differing) else shorter
