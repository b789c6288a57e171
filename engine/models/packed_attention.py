"""Attention within each of several conversations that lie end to end, so that none sees another and nothing is padded.

Registered with transformers under a name of its own: all of its decoders then compute packed batches, each with its own
projections, norms and positions. Attention is causal and per conversation, which is block-diagonal over the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from engine.kernels.packed_layout import PackedLayout

NAME = "lorasite_packed"


def register() -> None:
    """Make the attention known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface  # deferred: takes seconds

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_layout: PackedLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Return the context of all computed tokens: (1, tokens, heads, head width), as transformers' attention functions do.

    query: (1, heads, tokens, head width); key, value: the same with fewer heads where several queries share them.
    packed_layout: the conversations, of which these are the computed tokens. Dropout is ignored, because the weights that it would
    protect are frozen.
    """
    dtype = query.dtype
    if query.device.type == "cpu":
        # torch's flash attention on CPUs is eight times slower backward in bf16 than in fp32.
        query, key, value = query.float(), key.float(), value.float()
    queries, keys, values = (
        packed_layout.to_all(tensor, dim=2).split(packed_layout.lengths, dim=2) for tensor in (query, key, value)
    )
    contexts = [
        attend(*conversation, scaling, sliding_window, softcap)
        for conversation in zip(queries, keys, values, strict=True)
    ]
    context = packed_layout.to_computed(torch.cat(contexts, dim=2), dim=2)
    return context.to(dtype).transpose(1, 2).contiguous(), None


def attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    """Return the context of the last tokens of one conversation: (1, heads, tokens, head width).

    query: of those tokens alone; key, value: of all tokens of the conversation.
    """
    length, new = key.shape[2], query.shape[2]
    groups = query.shape[1] // key.shape[1]
    is_windowed = window is not None and length > window
    if not is_windowed and softcap is None and new in (1, length):
        return scaled_dot_product_attention(query, key, value, is_causal=new > 1, scale=scaling, enable_gqa=groups > 1)
    mask = torch.ones(new, length, dtype=torch.bool, device=query.device).tril(length - new)
    if is_windowed:
        mask = mask.triu(1 + length - new - int(window or 0))
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(groups, dim=1).transpose(2, 3) * scale
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights @ value.repeat_interleave(groups, dim=1)
