"""Several adapters in one batch: which rows each one changes, and how their updates and heads are computed.

There are two ways. An adapter's rows lie beside each other, so its low-rank products are those of a slice of rows (the
idea of arXiv 2310.18547). That takes a few small products for each adapter, which is fastest on a CPU. On a GPU starting
a product takes longer than the product itself, so the matrices of many adapters are stacked, and one batched product serves
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn.functional import linear

from engine.serve.adapter import HeadLayer, ServedAdapter
from engine.serve.transfer import move_together

MOST_STACKED = 128  # texts, each with a copy of its adapter's matrices: 64 MiB for one projection of BERT-base at r 16


class Rectangle:
    """Texts of several lengths, end to end and padded to the longest one. Indexes are computed on the CPU: a GPU would
    have to be waited for, since their number depends on the lengths.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.texts = len(lengths)
        self.longest = max(lengths)
        self.is_padded = min(lengths) < self.longest
        if self.is_padded:
            length_of_text = torch.tensor(lengths)[:, None]
            columns = torch.arange(self.longest)
            is_token = columns < length_of_text
            first_tokens = length_of_text.cumsum(0) - length_of_text
            token_of_cell = torch.where(is_token, first_tokens + columns, 0).flatten()
            cell_of_token = is_token.flatten().nonzero().flatten()
            self.token_of_cell, self.cell_of_token = move_together([token_of_cell, cell_of_token], device)

    def pad(self, x: Tensor) -> Tensor:
        """Return (texts, longest, width) for x: (tokens, width). What lies behind a shorter text has no meaning."""
        if self.is_padded:
            x = x.index_select(0, self.token_of_cell)
        return x.unflatten(0, (self.texts, self.longest))

    def unpad(self, x: Tensor) -> Tensor:
        """Return (tokens, width) for x: (texts, longest, width)."""
        x = x.flatten(0, 1)
        return x.index_select(0, self.cell_of_token) if self.is_padded else x


@dataclass(eq=False)
class AdapterSlice:
    """The rows of one adapter."""

    rows: slice
    adapter: ServedAdapter

    def add_update(self, y: Tensor, x: Tensor, projection: str) -> None:
        """Add the adapter's update of a projection to y: (rows, out) of the whole batch, for x: (rows, in)."""
        update = self.adapter.updates.get(projection)
        if update is not None:
            update.add_to(y[self.rows], x[self.rows])

    def classify(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of the own rows, for the first tokens of all texts."""
        return self.adapter.classify(first[self.rows])


class AdapterStack:
    """The rows of several adapters with matrices of the same shapes. adapters: one for each text."""

    def __init__(
        self, rows: slice, adapters: list[ServedAdapter], lengths: Sequence[int], device: torch.device
    ) -> None:
        self.rows = rows
        self.adapters = adapters
        self.rectangle = Rectangle(lengths, device)

    def add_update(self, y: Tensor, x: Tensor, projection: str) -> None:
        """Add each adapter's update of a projection to y: (rows, out) of the whole batch, for x: (rows, in)."""
        update = self.adapters[0].updates.get(projection)
        if update is None:
            return
        stacked = torch.stack([adapter.updates[projection].flat for adapter in self.adapters])
        a, b_of_pair = update.shape.unpack(stacked)
        projected = torch.bmm(self.rectangle.pad(x[self.rows]), a)
        if len(b_of_pair) == 1 and b_of_pair[0].shape[-1] == y.shape[-1]:
            added = torch.bmm(projected, b_of_pair[0])
        else:
            added = y.new_zeros(*projected.shape[:-1], y.shape[-1])
            for columns, ranks, b in zip(update.shape.columns, update.rank_slices, b_of_pair, strict=True):
                added[..., columns].baddbmm_(projected[..., ranks], b)
        y[self.rows].add_(self.rectangle.unpad(added))

    def classify(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of the own rows, for the first tokens of all texts."""
        features = logits = first[self.rows]
        for layers in zip(*(adapter.head for adapter in self.adapters), strict=True):
            features, logits = logits, _apply_head_layers(layers, logits)
        return logits, features


AdapterRows = AdapterSlice | AdapterStack


def _apply_head_layers(layers: tuple[HeadLayer, ...], x: Tensor) -> Tensor:
    """Return (texts, out) for x: (texts, in), each text by its own layer."""
    first = layers[0]
    if all(layer.weight is first.weight and layer.bias is first.bias for layer in layers):  # the base model's
        return first.activate(linear(x, first.weight, first.bias))
    weight = torch.stack([layer.weight for layer in layers])
    bias = torch.stack([layer.bias for layer in layers])
    return first.activate(torch.baddbmm(bias[..., None], weight, x[..., None]).squeeze(-1))


def split_batch(
    adapters: Sequence[ServedAdapter],
    layouts: Sequence[str],
    lengths: Sequence[int],
    most_slices: float,
    device: torch.device,
) -> list[AdapterRows]:
    """Split the rows of a batch. Neighbouring texts of one layout become slices, or a stack if they have more than
    `most_slices` adapters.

    adapters, layouts: of each text; equal ones are neighbours, and matrices of one layout have the same shapes.
    lengths: each text's rows: its tokens, or 1 where only its first token is computed.
    """
    ends = list(accumulate(lengths))

    def rows_of(texts: list[int]) -> slice:
        return slice(ends[texts[0]] - lengths[texts[0]], ends[texts[-1]])

    parts: list[AdapterRows] = []
    groups = [list(group) for _layout, group in groupby(range(len(layouts)), layouts.__getitem__)]
    pieces = [group[i : i + MOST_STACKED] for group in groups for i in range(0, len(group), MOST_STACKED)]
    for texts in pieces:
        segments = [list(group) for _id, group in groupby(texts, lambda i: id(adapters[i]))]
        if len(segments) <= most_slices:
            parts += [AdapterSlice(rows_of(segment), adapters[segment[0]]) for segment in segments]
        else:
            stacked = [adapters[i] for i in texts]
            parts.append(AdapterStack(rows_of(texts), stacked, [lengths[i] for i in texts], device))
    return parts
