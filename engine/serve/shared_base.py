"""A base model in memory, once for all adapters over it; a batch may hold texts of several of them.

The tokens of all texts lie end to end, without padding: (tokens, width). Texts of one adapter lie beside each other, so
its low-rank products are those of a slice of rows (the idea of arXiv 2310.18547). Only attention needs a rectangle. The
last layer computes each text's first token alone, since a classifier reads nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from engine.kernels.projection import join_parameters
from engine.models.architectures import EncoderArchitecture, LayerModules, activation_name
from engine.models.loading import load_classifier_to_serve
from engine.models.text_encoding import longest_text
from engine.serve.adapter import ServedAdapter
from engine.serve.batch import BatchRow, RowOutput

Segments = list[tuple[slice, ServedAdapter]]  # slices of rows, each with the adapter of its texts


class SharedProjection:
    """Linear modules with the same input, as one product; `paths` name them in the model. weight: (out, in)."""

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        modules: list[Any] = [model.get_submodule(path) for path in paths]
        self.weight = join_parameters([module.weight for module in modules])
        self.bias = join_parameters([module.bias for module in modules])
        ends = list(accumulate(len(module.weight) for module in modules))
        self.columns = {path: slice(start, end) for path, start, end in zip(paths, [0, *ends], ends, strict=False)}

    def __call__(self, x: Tensor, segments: Segments) -> Tensor:
        """Return (rows, out) for x: (rows, in), with each segment's update by its adapter.

        The rows are tokens, or texts where only their first tokens are computed.
        """
        y = torch.addmm(self.bias, x, self.weight.t())
        for rows, adapter in segments:
            for path, columns in self.columns.items():
                pair = adapter.pairs.get(path)
                if pair is not None:
                    y[rows, columns].addmm_(x[rows] @ pair.a, pair.b)
        return y


class SharedLayer:
    """The weights of one encoder layer; query, key and value are one projection."""

    def __init__(self, model: nn.Module, path: str, modules: LayerModules) -> None:
        query_key_value = (modules.query, modules.key, modules.value)
        self.qkv = SharedProjection(model, [f"{path}.{name}" for name in query_key_value])
        self.output = SharedProjection(model, [f"{path}.{modules.output}"])
        self.up = SharedProjection(model, [f"{path}.{modules.up}"])
        self.down = SharedProjection(model, [f"{path}.{modules.down}"])
        self.attention_norm = model.get_submodule(f"{path}.{modules.attention_norm}")
        self.output_norm = model.get_submodule(f"{path}.{modules.output_norm}")


class TokenLayout:
    """Where the tokens of each text lie: end to end, and in the padded rectangle that attention needs."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.rows = len(lengths)
        self.longest = max(lengths)
        self.is_padded = min(lengths) < self.longest
        length_of_row = torch.tensor(lengths, device=device)
        columns = torch.arange(self.longest, device=device)
        self.first_tokens = length_of_row.cumsum(0) - length_of_row
        self.is_token = columns < length_of_row[:, None]
        self.positions = columns.expand(self.rows, -1)[self.is_token]
        self.token_indexes = torch.where(self.is_token, self.first_tokens[:, None] + columns, 0)
        # (rows, 1, 1, longest); None without padding.
        self.attention_mask = self.is_token[:, None, None] if self.is_padded else None


class SharedBaseModel:
    """A base model with frozen weights: adapters add to what it computes and change nothing in it."""

    def __init__(self, folder: Path, architecture: EncoderArchitecture, device: torch.device) -> None:
        loaded, self.new_modules = load_classifier_to_serve(folder)
        model: Any = loaded.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]  # transformers' wrapper of `to`
        config = model.config
        self.architecture = architecture
        self.device = device
        body = model.get_submodule(architecture.body)
        self.embeddings = body.get_submodule("embeddings")
        self.first_position = architecture.first_position(config)
        self.longest_text = longest_text(config)
        self.heads = config.num_attention_heads
        self.shapes = {
            name: tuple(module.weight.shape) for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        projection = f"{architecture.body}.{architecture.embedding_projection}"
        self.embedding_projection = SharedProjection(model, [projection]) if projection in self.shapes else None
        paths = [f"{architecture.body}.{path}" for path in architecture.layer_paths(config)]
        layers = {path: SharedLayer(model, path, architecture.modules) for path in dict.fromkeys(paths)}
        self.layers = [layers[path] for path in paths]  # ALBERT repeats a layer
        head_modules = {path: model.get_submodule(path) for path, _activation in architecture.head}
        self.head = {path: (module.weight, module.bias) for path, module in head_modules.items()}

        from transformers.activations import ACT2FN  # deferred like every import of transformers

        self.activation = ACT2FN[activation_name(config)]

    @torch.inference_mode()
    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        """Return the outputs in the order of `rows`; rows of one adapter are computed beside each other."""
        order = sorted(range(len(rows)), key=lambda i: (id(rows[i].adapter), len(rows[i].ids)))
        rows = [rows[i] for i in order]
        layout = TokenLayout([len(row.ids) for row in rows], self.device)
        text_segments = _segments(rows, [1] * len(rows))
        token_segments = _segments(rows, [len(row.ids) for row in rows])
        ids = torch.tensor([[token for row in rows for token in row.ids]], device=self.device)
        x = self.embeddings(input_ids=ids, position_ids=layout.positions[None] + self.first_position)[0]
        if self.embedding_projection is not None:
            x = self.embedding_projection(x, token_segments)
        for layer in self.layers[:-1]:
            query, key, value = self._query_key_value(layer, x, layout, token_segments)
            context = scaled_dot_product_attention(query, key, value, attn_mask=layout.attention_mask)
            context = context.transpose(1, 2).flatten(2)
            context = context[layout.is_token] if layout.is_padded else context.flatten(0, 1)
            x = self._feed_forward(layer, x, context, token_segments)
        last = self.layers[-1]
        query, key, value = self._query_key_value(last, x, layout, token_segments)
        context = scaled_dot_product_attention(query[:, :, :1], key, value, attn_mask=layout.attention_mask)
        first = self._feed_forward(last, x[layout.first_tokens], context.transpose(1, 2).flatten(1), text_segments)
        outputs: list[RowOutput] = []
        for texts, adapter in text_segments:
            logits, features = adapter.classify(first[texts])
            outputs += [RowOutput(*row) for row in zip(logits, features, strict=True)]
        output_of_row = dict(zip(order, outputs, strict=True))
        return [output_of_row[i] for i in range(len(order))]

    def _query_key_value(
        self, layer: SharedLayer, x: Tensor, layout: TokenLayout, segments: Segments
    ) -> tuple[Tensor, ...]:
        """Return query, key and value of x: (tokens, width), each (rows, heads, longest, width of a head)."""
        qkv = layer.qkv(x, segments)
        qkv = qkv[layout.token_indexes] if layout.is_padded else qkv.view(layout.rows, layout.longest, -1)
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def _feed_forward(self, layer: SharedLayer, x: Tensor, context: Tensor, segments: Segments) -> Tensor:
        """Compute what follows attention: (rows, width) for x and context: (rows, width)."""
        x = layer.attention_norm(layer.output(context, segments).add_(x))
        inner = self.activation(layer.up(x, segments))
        return layer.output_norm(layer.down(inner, segments).add_(x))


def _segments(rows: list[BatchRow], lengths: list[int]) -> Segments:
    """Join neighbouring rows of one adapter to one slice; `lengths` are what each row takes of the sliced dimension."""
    segments: Segments = []
    start = 0
    for _adapter_id, group in groupby(zip(rows, lengths, strict=True), key=lambda pair: id(pair[0].adapter)):
        members = list(group)
        end = start + sum(length for _row, length in members)
        adapter = members[0][0].adapter
        assert adapter is not None
        segments.append((slice(start, end), adapter))
        start = end
    return segments
