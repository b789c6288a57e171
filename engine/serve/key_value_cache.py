"""Keys and values of tokens that a language model has read, within a bound and without copies.

Tokens lie in blocks of slots that are allocated once. A block that is full can be shared by all sequences that begin with the same
tokens and have the same adapter, at the same time or later: a conversation goes on, and a system prompt is read once. Blocks that
no sequence uses are kept until others need them, least recently used first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

BLOCK = 16  # tokens


@dataclass(slots=True)
class CachedSequence:
    """The blocks of one sequence. slots: of each token that there is room for, int32. length: tokens that the model has read;
    reused: those of them that an earlier sequence had read. owner: sequences of other owners share no blocks with it.
    """

    owner: bytes
    blocks: list[int]
    slots: np.ndarray
    length: int = 0
    reused: int = 0
    keys: list[bytes] = field(default_factory=list)  # of the full blocks, in their order


class KeyValueCache:
    """The keys and values of all sequences of one model: for each layer, (slots, heads, width)."""

    def __init__(self, tokens: int) -> None:
        self.blocks = max(1, tokens // BLOCK)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._free = list(range(self.blocks))
        self._users = [0] * self.blocks
        self._block_of_key: dict[bytes, int] = {}
        self._key_of_block: dict[int, bytes] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()  # full blocks without users, least recently used first

    @property
    def tokens(self) -> int:
        """Return the tokens that there is room for, together."""
        return self.blocks * BLOCK

    def open(self, owner: bytes, ids: list[int], tokens: int, spare_blocks: int = 0) -> CachedSequence | None:
        """Return a place of `tokens` tokens for a sequence that begins with `ids`; None if there is no room now.

        spare_blocks: that must be left, so that other sequences can grow.
        What an earlier sequence has read of `ids` is read already, but for the last token, whose output is wanted.
        """
        needed = -(-tokens // BLOCK)
        shared: list[int] = []
        keys: list[bytes] = []
        for key in _keys_of_blocks(owner, ids[:-1]):
            block = self._block_of_key.get(key)
            if block is None:
                break
            shared.append(block)
            keys.append(key)
        available = len(self._free) + len(self._unused) - sum(block in self._unused for block in shared)
        if needed - len(shared) > available - spare_blocks:
            return None
        for block in shared:
            self._unused.pop(block, None)
        blocks = shared + [self._take_block() for _ in range(needed - len(shared))]
        for block in blocks:
            self._users[block] += 1
        reused = len(shared) * BLOCK
        return CachedSequence(owner, blocks, _slots_of(blocks), reused, reused, keys)

    def grow(self, sequence: CachedSequence, tokens: int) -> bool:
        """Give a sequence room for `tokens` tokens in all; return whether there was enough."""
        missing = -(-tokens // BLOCK) - len(sequence.blocks)
        if missing <= 0:
            return True
        if missing > len(self._free) + len(self._unused):
            return False
        blocks = [self._take_block() for _ in range(missing)]
        for block in blocks:
            self._users[block] += 1
        sequence.blocks += blocks
        sequence.slots = np.concatenate((sequence.slots, _slots_of(blocks)))
        return True

    def advance(self, sequence: CachedSequence, ids: list[int], count: int) -> None:
        """Count tokens that were read, of `ids`, which are all of the sequence's; blocks that are full now can be shared."""
        sequence.length += count
        full = sequence.length // BLOCK
        while len(sequence.keys) < full:
            index = len(sequence.keys)
            parent = sequence.keys[-1] if sequence.keys else sequence.owner
            key = _key_of_tokens(parent, ids[index * BLOCK : (index + 1) * BLOCK])
            sequence.keys.append(key)
            if key not in self._block_of_key:
                self._block_of_key[key] = sequence.blocks[index]
                self._key_of_block[sequence.blocks[index]] = key

    def close(self, sequence: CachedSequence) -> None:
        """Give the blocks of a sequence back. The last ones are given to others first: the beginning is what others share."""
        for block in reversed(sequence.blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._key_of_block:
                self._unused[block] = None
            else:
                self._free.append(block)
        sequence.blocks = []

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write what a layer computed of some tokens. keys, values: (tokens, heads, width)."""
        if layer not in self.keys:
            shape = (self.tokens, *keys.shape[1:])
            self.keys[layer] = torch.empty(shape, dtype=keys.dtype, device=keys.device)
            self.values[layer] = torch.empty(self.tokens, *values.shape[1:], dtype=values.dtype, device=values.device)
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)

    def _take_block(self) -> int:
        if self._free:
            return self._free.pop()
        block, _ = self._unused.popitem(last=False)
        del self._block_of_key[self._key_of_block.pop(block)]
        return block


def _slots_of(blocks: list[int]) -> np.ndarray:
    """Return the slots of blocks in their order: (tokens,) int32."""
    return (np.array(blocks, np.int32)[:, None] * BLOCK + np.arange(BLOCK, dtype=np.int32)).reshape(-1)


def bytes_per_token(config: PretrainedConfig) -> int:
    """Return the bytes of the keys and values of one token in fp32."""
    text: Any = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * 4 * int(text.num_hidden_layers * heads * width)


def _keys_of_blocks(owner: bytes, ids: list[int]) -> list[bytes]:
    """Return the key of each full block of tokens."""
    keys = []
    key = owner
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = _key_of_tokens(key, ids[start : start + BLOCK])
        keys.append(key)
    return keys


def _key_of_tokens(parent: bytes, ids: list[int]) -> bytes:
    """Return a key of a block's tokens and all before them. Nobody can make two that are equal: it is a cryptographic hash."""
    return hashlib.blake2b(parent + np.array(ids, np.int64).tobytes(), digest_size=32).digest()
