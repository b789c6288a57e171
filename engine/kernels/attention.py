"""Attention of all texts of a batch, with its gradient, and where the batch's tokens lie.

In a `PaddedBatch` the texts fill a rectangle, in a `PackedBatch` they lie end to end. Products with weights do not care.
Shapes: tokens are all that are computed, padding included where there is any; qkv: (tokens, 3 × width) has query, key and
value side by side.

    P = softmax(scale · Q Kᵀ + mask)        context = P V
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

aten = torch.ops.aten
# torch's softmax on bf16 rows that are no multiple of its vectors is four times slower than on fp32 rows. Below these
# lengths (in tokens, measured) the detour through fp32 is faster.
FP32_SOFTMAX_LENGTH = 96
FP32_SOFTMAX_BACKWARD_LENGTH = 32  # numbers in a register of 512 bits
ROUNDED_LENGTH = 64  # tokens; rectangles of rounded texts are multiples of it long
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


@dataclass(eq=False)
class PaddedBatch:
    """Texts in a rectangle, shorter ones with padding: tokens = rows × length.

    Attention is computed by hand, because torch's flash attention on CPUs takes 9.7 ms backward for 32 texts of 27 tokens, and
    this takes 0.2 ms.
    """

    rows: int
    length: int
    mask: Tensor | None

    @classmethod
    def of(cls, attention_mask: Tensor, dtype: torch.dtype) -> PaddedBatch:
        """Return the batch of a mask that is 1 for tokens and 0 for padding: (rows, length)."""
        rows, length = attention_mask.shape
        return cls(rows, length, None if bool(attention_mask.all()) else added_to_scores(attention_mask, dtype))

    def attend(self, qkv: Tensor, heads: int, scale: float) -> tuple[Tensor, Saved]:
        """See Batch. Saved are query, key and value by head: (3, rows × heads, length, head width), and P."""
        head_width = qkv.shape[1] // (3 * heads)
        split = qkv.view(self.rows, self.length, 3, heads, head_width).permute(2, 0, 3, 1, 4)
        by_head = split.reshape(3, self.rows * heads, self.length, head_width)
        mask = None if self.mask is None else self.mask.repeat(1, heads, 1, 1).flatten(0, 1)
        context, weights = attend_heads(by_head, mask, scale)
        return self._join_heads(context[None], heads), (by_head, weights)

    def attend_backward(self, dcontext: Tensor, saved: Saved, heads: int, scale: float) -> Tensor:
        """See Batch."""
        by_head, weights = saved
        split = dcontext.view(self.rows, self.length, heads, -1).permute(0, 2, 1, 3)
        gradients = torch.empty_like(by_head)
        attend_heads_backward(split.reshape(by_head.shape[1:]), by_head, weights, scale, gradients)
        return self._join_heads(gradients, heads)

    def rectangle(self, x: Tensor) -> Tensor:
        """See Batch."""
        return x.view(self.rows, self.length, -1)

    def _join_heads(self, split: Tensor, heads: int) -> Tensor:
        """Return (tokens, n × width) for (n, rows × heads, length, head width)."""
        number, width = split.shape[0], split.shape[-1]
        joined = split.view(number, self.rows, heads, self.length, width).permute(1, 3, 0, 2, 4)
        return joined.reshape(self.rows * self.length, number * heads * width)


def attend_heads(by_head: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Return the context and P of heads: (3, heads, length, head width) → (heads, length, head width), (heads, length, length).

    mask: what is added to the scores.
    """
    query, key, value = by_head
    added = query.new_empty(()) if mask is None else mask  # baddbmm ignores it where beta is 0
    scores = torch.baddbmm(added, query, key.transpose(1, 2), beta=int(mask is not None), alpha=scale)
    if scores.shape[-1] < FP32_SOFTMAX_LENGTH:
        weights = aten._softmax(scores.float(), -1, False).to(scores.dtype)
    else:
        weights = aten._softmax(scores, -1, False)
    return torch.bmm(weights, value), weights


def attend_heads_backward(dcontext: Tensor, by_head: Tensor, weights: Tensor, scale: float, gradients: Tensor) -> None:
    """Write the gradients of query, key and value: (3, heads, length, head width). With the scores S and the context C = P V:

    dV = Pᵀ dC        dP = dC Vᵀ        dS = P (dP - Σ P dP)        dQ = scale · dS K        dK = scale · dSᵀ Q
    """
    query, key, value = by_head
    dquery, dkey, dvalue = gradients
    torch.bmm(weights.transpose(1, 2), dcontext, out=dvalue)
    dweights = torch.bmm(dcontext, value.transpose(1, 2))
    if weights.shape[-1] < FP32_SOFTMAX_BACKWARD_LENGTH:
        dscores = aten._softmax_backward_data(dweights.float(), weights.float(), -1, torch.float32)
        dscores = dscores.to(weights.dtype)
    else:
        dscores = aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
    torch.baddbmm(dquery, dscores, key, beta=0, alpha=scale, out=dquery)
    torch.baddbmm(dkey, dscores.transpose(1, 2), query, beta=0, alpha=scale, out=dkey)


def added_to_scores(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (rows, 1, 1, length): 0 for tokens, and for padding what softmax makes 0."""
    # The lowest finite number instead of -inf: softmax makes a row of -inf alone NaN.
    return (1 - attention_mask[:, None, None, :]).to(dtype) * torch.finfo(dtype).min


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """The tokens of texts that lie end to end, and where each is in the rectangle of a padded batch.

    tokens: (3, tokens) int64 with the id, the position in its text and the place in the rectangle of each token; for pairs of
    texts, which are told apart by them, its type is a fourth.
    offsets: where each text starts, and the end of the last one: (texts + 1,) int32, as flash attention takes them.
    mask: see Batch; it also holds the numbers of rows and columns of the rectangle.
    """

    tokens: Tensor
    offsets: Tensor
    mask: Tensor

    @classmethod
    def pack(
        cls, input_ids: Tensor, attention_mask: Tensor, dtype: torch.dtype, token_type_ids: Tensor | None = None
    ) -> PackedTexts:
        """Pack ids: (rows, length), with a mask that is 1 for tokens and 0 for padding, and perhaps types.

        All are on the CPU: where tokens lie depends on values, for which a GPU would have to finish all its work first.
        """
        # numpy, because torch takes a hundred times as long to wake its threads for so little.
        is_token = attention_mask.numpy().astype(bool)
        positions = (is_token.cumsum(1) - 1)[is_token]
        tokens = np.stack(
            (
                input_ids.numpy()[is_token],
                positions,
                is_token.ravel().nonzero()[0],
                *(() if token_type_ids is None else (token_type_ids.numpy()[is_token],)),
            )
        )
        offsets = np.concatenate(([0], is_token.sum(1).cumsum())).astype(np.int32)
        return cls(torch.from_numpy(tokens), torch.from_numpy(offsets), added_to_scores(attention_mask, dtype))

    def rounded(self) -> PackedTexts:
        """Return the same texts in one of few shapes: tokens are rounded up to one of eight numbers per doubling.

        The tokens that are added are texts of their own, which nothing reads: their place is beyond the rectangle. They
        are as many as the rounding may ever take, so most have no token. The rectangle gets empty columns.
        """
        rows, columns = self.mask.shape[0], self.mask.shape[-1]
        length = -(-columns // ROUNDED_LENGTH) * ROUNDED_LENGTH
        count = self.tokens.shape[1]
        step = max(1, 2 ** (count.bit_length() - 4))  # at most an eighth of the tokens, so of rows × length
        tokens = np.zeros((len(self.tokens), count + -count % step), dtype=np.int64)
        tokens[:, :count] = self.tokens.numpy()
        row, column = np.divmod(tokens[2, :count], columns)
        tokens[2, :count] = row * length + column
        tokens[2, count:] = rows * length
        ends = np.minimum(count + np.arange(1, rows // 8 + 2) * length, tokens.shape[1])
        offsets = np.concatenate((self.offsets.numpy(), ends.astype(np.int32)))
        mask = self.mask.new_full((rows, 1, 1, length), torch.finfo(self.mask.dtype).min)
        mask[..., :columns] = self.mask
        return PackedTexts(torch.from_numpy(tokens), torch.from_numpy(offsets), mask)

    def to(self, device: torch.device) -> PackedTexts:
        """Return the same on a device."""
        return PackedTexts(self.tokens.to(device), self.offsets.to(device), self.mask.to(device))


class PackedBatch:
    """Texts end to end, without padding; for GPUs, which compute padding no faster than tokens.

    Attention is torch's flash attention if `flash` is true, which only CUDA has for such batches; else that of the rectangle.
    """

    def __init__(self, texts: PackedTexts, flash: bool) -> None:
        self.ids, self.positions, self.places = texts.tokens[:3]
        self.types = texts.tokens[3] if len(texts.tokens) > 3 else None
        self.offsets = texts.offsets
        self.mask: Tensor | None = texts.mask
        self.rows = texts.mask.shape[0]
        self.length = texts.mask.shape[-1]
        self.flash = flash

    def rectangle(self, x: Tensor) -> Tensor:
        """See Batch. Padding is zero."""
        padded = x.new_zeros(
            self.rows * self.length + 1, x.shape[1]
        )  # one more: the place of tokens that nothing reads
        return padded.index_copy(0, self.places, x)[:-1].view(self.rows, self.length, -1)

    def attend(self, qkv: Tensor, heads: int, scale: float) -> tuple[Tensor, Saved]:
        """See Batch. Flash attention keeps its result instead of P, and the logarithm of each row's sum."""
        if not self.flash:
            context, saved = self._padded().attend(self.rectangle(qkv).flatten(0, 1), heads, scale)
            return self._pack(context), saved
        query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        context, logarithms, *random_state, _ = aten._flash_attention_forward(
            query, key, value, self.offsets, self.offsets, self.length, self.length, 0.0, False, False, scale=scale
        )
        return context.view(len(qkv), -1), (qkv, context, logarithms, *random_state)

    def attend_backward(self, dcontext: Tensor, saved: Saved, heads: int, scale: float) -> Tensor:
        """See Batch."""
        if not self.flash:
            rectangle = self.rectangle(dcontext).flatten(0, 1)
            return self._pack(self._padded().attend_backward(rectangle, saved, heads, scale))
        qkv, context, logarithms, *random_state = saved
        query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        by_part = aten._flash_attention_backward(
            dcontext.view(context.shape), query, key, value, context, logarithms, self.offsets, self.offsets,
            self.length, self.length, 0.0, False, *random_state, scale=scale,
        )  # fmt: skip
        return torch.stack(by_part, 1).view(qkv.shape)

    def _pack(self, x: Tensor) -> Tensor:
        """Return the tokens of x: (rows × length, width); zero for those that nothing reads."""
        return nn.functional.pad(x, (0, 0, 0, 1)).index_select(0, self.places)

    def _padded(self) -> PaddedBatch:
        return PaddedBatch(self.rows, self.length, self.mask)


def has_flash_attention(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Return whether torch has flash attention for packed batches: on GPUs from compute capability 8.0, in bf16."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return False
    return (
        torch.cuda.get_device_capability(device) >= (8, 0) and head_width % 8 == 0 and head_width <= WIDEST_FLASH_HEAD
    )
