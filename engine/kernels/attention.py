"""Attention of all texts of a batch, with its gradient, and where the batch's tokens lie.

In a `PaddedBatch` the texts fill a rectangle, in a `PackedBatch` they lie end to end. Products with weights do not care.
Shapes: tokens are all that are computed, padding included where there is any; qkv: (tokens, 3 × width) has query, key and
value side by side.

    P = softmax(scale · Q Kᵀ + mask)        context = P V
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

aten = torch.ops.aten
# torch's softmax on bf16 rows that are no multiple of its vectors is four times slower than on fp32 rows. Below these
# lengths (in tokens, measured) the detour through fp32 is faster.
FP32_SOFTMAX_LENGTH = 96
FP32_SOFTMAX_BACKWARD_LENGTH = 32  # numbers in a register of 512 bits
WIDEST_FLASH_HEAD = 128  # numbers; wider heads need more shared memory backward than some GPUs have

Saved = tuple[Tensor, ...]  # what the gradient needs; its order is that of the method that returns it


class Batch(Protocol):
    """Where the tokens of a batch lie, and its attention. scale: of the scores, one by the root of a head's width."""

    rows: int
    length: int  # tokens of the longest text

    @property
    def mask(self) -> Tensor | None:
        """Return what is added to scores of the rectangle: (rows, 1, 1, length); None without padding."""
        ...

    def attend(self, qkv: Tensor, heads: int, scale: float) -> tuple[Tensor, Saved]:
        """Return the context: (tokens, width), and what `attend_backward` needs."""
        ...

    def attend_backward(self, dcontext: Tensor, saved: Saved, heads: int, scale: float) -> Tensor:
        """Return the gradients of query, key and value: (tokens, 3 × width) for dcontext: (tokens, width)."""
        ...

    def rectangle(self, x: Tensor) -> Tensor:
        """Return x: (tokens, width) as (rows, length, width)."""
        ...


class PaddedBatch:
    """Texts in a rectangle, shorter ones with padding: tokens = rows × length.

    Attention is computed by hand, because torch's flash attention on CPUs takes 9.7 ms backward for 32 texts of 27 tokens, and
    this takes 0.2 ms.
    """

    def __init__(self, attention_mask: Tensor, dtype: torch.dtype) -> None:
        self.rows, self.length = attention_mask.shape
        self.mask: Tensor | None = None
        if not bool(attention_mask.all()):
            # The lowest finite number instead of -inf: softmax makes a row of -inf alone NaN.
            self.mask = (1 - attention_mask[:, None, None, :]).to(dtype) * torch.finfo(dtype).min

    def attend(self, qkv: Tensor, heads: int, scale: float) -> tuple[Tensor, Saved]:
        """See Batch. Saved are query, key and value by head: (3, rows × heads, length, head width), and P."""
        head_width = qkv.shape[1] // (3 * heads)
        split = qkv.view(self.rows, self.length, 3, heads, head_width).permute(2, 0, 3, 1, 4)
        by_head = split.reshape(3, self.rows * heads, self.length, head_width)
        query, key, value = by_head
        if self.mask is None:
            mask = query.new_empty(())  # baddbmm ignores it, as beta is 0
            beta = 0
        else:
            mask = self.mask.repeat(1, heads, 1, 1).flatten(0, 1)
            beta = 1
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), beta=beta, alpha=scale)
        if scores.shape[-1] < FP32_SOFTMAX_LENGTH:
            weights = aten._softmax(scores.float(), -1, False).to(scores.dtype)
        else:
            weights = aten._softmax(scores, -1, False)
        return self._join_heads(torch.bmm(weights, value)[None], heads), (by_head, weights)

    def attend_backward(self, dcontext: Tensor, saved: Saved, heads: int, scale: float) -> Tensor:
        """See Batch. With the scores S and the context C = P V:

        dV = Pᵀ dC        dP = dC Vᵀ        dS = P (dP - Σ P dP)        dQ = scale · dS K        dK = scale · dSᵀ Q
        """
        by_head, weights = saved
        query, key, value = by_head
        split = dcontext.view(self.rows, self.length, heads, -1).permute(0, 2, 1, 3)
        dcontext_heads = split.reshape(query.shape)
        gradients = torch.empty_like(by_head)
        dquery, dkey, dvalue = gradients
        torch.bmm(weights.transpose(1, 2), dcontext_heads, out=dvalue)
        dweights = torch.bmm(dcontext_heads, value.transpose(1, 2))
        if weights.shape[-1] < FP32_SOFTMAX_BACKWARD_LENGTH:
            dscores = aten._softmax_backward_data(dweights.float(), weights.float(), -1, torch.float32)
            dscores = dscores.to(weights.dtype)
        else:
            dscores = aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
        torch.baddbmm(dquery, dscores, key, beta=0, alpha=scale, out=dquery)
        torch.baddbmm(dkey, dscores.transpose(1, 2), query, beta=0, alpha=scale, out=dkey)
        return self._join_heads(gradients, heads)

    def rectangle(self, x: Tensor) -> Tensor:
        """See Batch."""
        return x.view(self.rows, self.length, -1)

    def _join_heads(self, split: Tensor, heads: int) -> Tensor:
        """Return (tokens, n × width) for (n, rows × heads, length, head width)."""
        number, width = split.shape[0], split.shape[-1]
        joined = split.view(number, self.rows, heads, self.length, width).permute(1, 3, 0, 2, 4)
        return joined.reshape(self.rows * self.length, number * heads * width)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the tokens of a packed batch lie.

    tokens: the places of all tokens in the rectangle, (tokens,). positions: of each token in its text, (tokens,).
    offsets: where each text starts, and the end of the last one: (rows + 1,) int32, as flash attention takes them.
    """

    tokens: Tensor
    positions: Tensor
    offsets: Tensor


class PackedBatch:
    """Texts end to end, without padding; for GPUs, which compute padding no faster than tokens.

    Attention is torch's flash attention if `flash` is true, which only CUDA has for such batches; else that of the rectangle.
    """

    def __init__(self, attention_mask: Tensor, dtype: torch.dtype, device: torch.device, flash: bool) -> None:
        # Everything that depends on values is computed on the CPU: a GPU would have to finish all its work first.
        is_token = attention_mask.cpu().bool()
        self.rows, self.length = is_token.shape
        self.flash = flash
        self._is_token = is_token
        self._dtype = dtype
        self._device = device
        offsets = torch.nn.functional.pad(is_token.sum(1).cumsum(0), (1, 0)).int()
        self.places = _Places(
            tokens=is_token.flatten().nonzero()[:, 0].to(device),
            positions=(is_token.cumsum(1) - 1)[is_token].to(device),
            offsets=offsets.to(device),
        )

    @cached_property
    def padded(self) -> PaddedBatch:
        """Return the same batch as a rectangle."""
        return PaddedBatch(self._is_token.long().to(self._device), self._dtype)

    @property
    def mask(self) -> Tensor | None:
        """See Batch."""
        return self.padded.mask

    def pack(self, x: Tensor) -> Tensor:
        """Return the tokens of (rows, length, ...) without padding: (tokens, ...)."""
        return x.flatten(0, 1).index_select(0, self.places.tokens)

    def rectangle(self, x: Tensor) -> Tensor:
        """See Batch. Padding is zero."""
        padded = x.new_zeros(self.rows * self.length, x.shape[1])
        return padded.index_copy(0, self.places.tokens, x).view(self.rows, self.length, -1)

    def attend(self, qkv: Tensor, heads: int, scale: float) -> tuple[Tensor, Saved]:
        """See Batch. Flash attention keeps its result instead of P, and the logarithm of each row's sum."""
        if not self.flash:
            context, saved = self.padded.attend(self.rectangle(qkv).flatten(0, 1), heads, scale)
            return self.pack(self.padded.rectangle(context)), saved
        offsets, longest = self.places.offsets, self.length
        query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        context, logarithms, *random_state, _ = aten._flash_attention_forward(
            query, key, value, offsets, offsets, longest, longest, 0.0, False, False, scale=scale
        )
        return context.view(len(qkv), -1), (qkv, context, logarithms, *random_state)

    def attend_backward(self, dcontext: Tensor, saved: Saved, heads: int, scale: float) -> Tensor:
        """See Batch."""
        if not self.flash:
            padded = self.rectangle(dcontext).flatten(0, 1)
            gradients = self.padded.attend_backward(padded, saved, heads, scale)
            return self.pack(self.padded.rectangle(gradients))
        offsets, longest = self.places.offsets, self.length
        qkv, context, logarithms, *random_state = saved
        query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        by_part = aten._flash_attention_backward(
            dcontext.view(context.shape), query, key, value, context, logarithms, offsets, offsets, longest, longest,
            0.0, False, *random_state, scale=scale,
        )  # fmt: skip
        return torch.stack(by_part, 1).view(qkv.shape)


def has_flash_attention(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Return whether torch has flash attention for packed batches: on GPUs from compute capability 8.0, in bf16."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return False
    return (
        torch.cuda.get_device_capability(device) >= (8, 0) and head_width % 8 == 0 and head_width <= WIDEST_FLASH_HEAD
    )
