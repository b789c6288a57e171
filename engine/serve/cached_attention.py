"""Attention of new tokens to all tokens of their sequence, most of which lie in a cache.

Registered with transformers under a name of its own, as engine.models.packed_attention is: all of its decoders then compute rows of
several sequences at once, each with its own projections, norms and positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from engine.models.packed_attention import attend
from engine.serve.key_value_cache import CachedSequence, KeyValueCache

NAME = "lorasite_cached"
ENDLESS = 2**31  # tokens of a window that nothing is longer than


def register() -> None:
    """Make the attention known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface  # deferred: takes seconds

    AttentionInterface.register(NAME, cached_attention)


def cached_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    new_tokens: NewTokens,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Return the context of all new tokens: (1, tokens, heads, width), as transformers' attention functions do.

    query: (1, heads, tokens, width); key, value: the same with fewer heads where several queries share them.
    """
    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    return new_tokens.attend(module.layer_idx, query, key, value, scaling, sliding_window, softcap)[None], None


class NewTokens:
    """The tokens that a step reads, those of each sequence beside each other. lengths: of each sequence."""

    def __init__(
        self,
        cache: KeyValueCache,
        sequences: Sequence[CachedSequence],
        lengths: Sequence[int],
        device: torch.device,
        kernels: ModuleType | None,
    ) -> None:
        self.cache = cache
        self.kernels: Any = kernels
        self.lengths = lengths
        starts = [sequence.length for sequence in sequences]
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        spans = list(zip(sequences, starts, ends, strict=True))
        self.positions = torch.cat([torch.arange(start, end) for _sequence, start, end in spans]).to(device)
        self.slots_of_sequence = [torch.from_numpy(sequence.slots[:end]) for sequence, _start, end in spans]
        self.slots = torch.cat([torch.from_numpy(sequence.slots[start:end]) for sequence, start, end in spans])
        self.slots = self.slots.long().to(device)
        is_single = [length == 1 for length in lengths]
        if self.kernels is not None and any(is_single):
            places = [(slots.data_ptr(), len(slots)) for slots in self.slots_of_sequence]
            self.places = torch.tensor([place for place, single in zip(places, is_single, strict=True) if single])
            self.scores = self.kernels.scratch(max(ends))
            tokens = [single for single, length in zip(is_single, lengths, strict=True) for _ in range(length)]
            self.single_tokens = torch.tensor(tokens).nonzero().flatten()

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Write keys and values of a layer to the cache; return the context of the tokens: (tokens, heads, width)."""
        self.cache.write(layer, self.slots, key, value)
        uses_kernel = self.kernels is not None and softcap is None and key.shape[-1] == value.shape[-1]
        if uses_kernel and all(length == 1 for length in self.lengths):
            return self._attend_one_each(layer, query, scaling, window)
        context = query.new_empty(len(query), query.shape[1], value.shape[-1])
        if uses_kernel and 1 in self.lengths:
            context[self.single_tokens] = self._attend_one_each(layer, query[self.single_tokens], scaling, window)
        start = 0
        for slots, length in zip(self.slots_of_sequence, self.lengths, strict=True):
            rows = slice(start, start + length)
            start += length
            if length > 1 or not uses_kernel:
                keys, values = (
                    each[layer].index_select(0, slots.to(query.device)).transpose(0, 1)[None]
                    for each in (self.cache.keys, self.cache.values)
                )
                queries = query[rows].transpose(0, 1)[None]
                context[rows] = attend(queries, keys, values, scaling, window, softcap)[0].transpose(0, 1)
        return context

    def _attend_one_each(self, layer: int, query: Tensor, scaling: float | None, window: int | None) -> Tensor:
        rows, heads, width = query.shape
        context = torch.empty_like(query)
        self.kernels.attend(
            context,
            query,
            self.cache.keys[layer],
            self.cache.values[layer],
            self.places,
            self.scores,
            rows,
            heads,
            self.cache.keys[layer].shape[1],
            width,
            self.scores.shape[1],
            ENDLESS if window is None else window,
            float(width**-0.5 if scaling is None else scaling),
        )
        return context
