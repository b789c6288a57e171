"""The forward pass of transformers and PEFT, made independent of what else is or was computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[..., Tensor]


def plain_forward(model: nn.Module, max_length: int) -> Forward:
    """Return a model's own forward pass: (rows, length) ids, mask and perhaps token types → logits.

    The logits are (rows, labels), or (rows, length, labels) for token classification.
    max_length: tokens of the longest text that it will get. Ids, mask and types may be on any device.
    """
    device = next(model.parameters()).device

    def forward(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids.to(device)}
        logits: Tensor = model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), **types).logits
        return logits

    switching: list[Any] = [module for module in model.modules() if hasattr(module, "set_attention_type")]
    if not switching:
        return forward
    # BigBird: transformers turns block-sparse attention into full attention at the first short batch, for good.
    body = switching[0]
    longest_in_full = (5 + 2 * body.config.num_random_blocks) * body.config.block_size
    if max_length <= longest_in_full or body.attention_type == "original_full":
        body.set_attention_type("original_full")
        return forward
    return _forward_by_attention(forward, body, longest_in_full, body.config.block_size)


def _forward_by_attention(forward: Forward, body: Any, longest_in_full: int, block_size: int) -> Forward:
    """Return a forward pass of BigBird in which each text is computed as if it were alone.

    Short texts get full attention. The others get block-sparse attention, which depends on the number of blocks, so only
    texts of equally many blocks are computed together.
    """

    def grouped(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        lengths = attention_mask.sum(1)
        blocks = torch.where(lengths <= longest_in_full, 0, (lengths + block_size - 1) // block_size)
        order: list[Tensor] = []
        outputs: list[Tensor] = []
        for count in blocks.unique().tolist():
            rows = (blocks == count).nonzero()[:, 0]
            longest = int(lengths[rows].max())
            body.set_attention_type("block_sparse" if count else "original_full")
            types = None if token_type_ids is None else token_type_ids[rows, :longest]
            logits = forward(input_ids[rows, :longest], attention_mask[rows, :longest], types)
            if logits.dim() == 3:  # a row of outputs for each token: all groups get as many as the batch has
                logits = nn.functional.pad(logits, (0, 0, 0, input_ids.shape[1] - longest))
            outputs.append(logits)
            order.append(rows)
        return torch.cat(outputs)[torch.cat(order).argsort()]

    return grouped
