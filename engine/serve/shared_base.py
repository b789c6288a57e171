"""A base model in memory, once for all adapters over it; a batch may hold texts of several of them.

The tokens of all texts lie end to end, without padding: (tokens, width); only attention needs a rectangle. Texts of one
adapter lie beside each other; mixed_batch adds the adapters' updates. The last layer computes each text's first token
alone, since a classifier reads nothing else.

On a GPU the thread that computes waits only once in a batch, for all outputs: each wait takes as long as many products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
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
from engine.serve.mixed_batch import AdapterRows, Rectangle, split_batch
from engine.serve.transfer import move_together

# With more, a GPU takes longer to start the products of slices than those of a stack, which are as many for any number.
MOST_SLICES_ON_GPU = 3


class SharedProjection:
    """Linear modules with the same input, as one product; `paths` name them in the model. weight: (out, in).

    name: what adapters call it. columns: each module's part of the output.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        modules: list[Any] = [model.get_submodule(path) for path in paths]
        self.name = paths[0]
        self.weight = join_parameters([module.weight for module in modules])
        self.inputs = self.weight.shape[1]
        self.bias = join_parameters([module.bias for module in modules])
        ends = list(accumulate(len(module.weight) for module in modules))
        self.columns = {path: slice(start, end) for path, start, end in zip(paths, [0, *ends], ends, strict=False)}

    def __call__(self, x: Tensor, parts: list[AdapterRows]) -> Tensor:
        """Return (rows, out) for x: (rows, in), with each part's update by its adapters.

        The rows are tokens, or texts where only their first tokens are computed.
        """
        y = torch.addmm(self.bias, x, self.weight.t())
        for part in parts:
            part.add_update(y, x, self.name)
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

    @property
    def projections(self) -> list[SharedProjection]:
        """Return all projections of the layer."""
        return [self.qkv, self.output, self.up, self.down]


class TokenLayout:
    """The tokens of texts, and where they lie: end to end, and in the padded rectangle that attention needs.

    ids, positions, types: of each token. first_tokens: the index of each text's first one.
    """

    def __init__(self, rows: Sequence[BatchRow], device: torch.device) -> None:
        texts = [row.ids for row in rows]
        lengths = [len(ids) for ids in texts]
        self.rectangle = Rectangle(lengths, device)
        length_of_text = torch.tensor(lengths)
        ids = torch.tensor([token for ids in texts for token in ids])
        first_tokens = length_of_text.cumsum(0) - length_of_text
        positions = torch.arange(len(ids)) - first_tokens.repeat_interleave(length_of_text)
        arrays = [ids, positions, first_tokens]
        if any(row.types for row in rows):
            arrays.append(torch.tensor([kind for row in rows for kind in row.types or [0] * len(row.ids)]))
        self.ids, self.positions, self.first_tokens, *types = move_together(arrays, device)
        self.types = types[0] if types else None
        # Added to the scores, (texts, 1, 1, longest): 0 for tokens and -inf for padding; None without padding.
        self.attention_mask: Tensor | None = None
        if self.rectangle.is_padded:
            longest = max(lengths)
            aligned = -(-longest // 8) * 8  # kernels for GPUs would copy rows that start elsewhere
            # Numbers, because attention would convert a mask of booleans in each layer.
            mask = torch.zeros(len(lengths), 1, 1, aligned)
            mask.masked_fill_(torch.arange(aligned) >= length_of_text[:, None, None, None], -math.inf)
            self.attention_mask = mask.to(device)[..., :longest]


class SharedBaseModel:
    """A base model with frozen weights: adapters add to what it computes and change nothing in it.

    most_slices: adapters of equal shapes in a batch up to which each one is computed by itself; see mixed_batch.
    """

    def __init__(self, folder: Path, architecture: EncoderArchitecture, device: torch.device) -> None:
        loaded, self.new_modules = load_classifier_to_serve(folder)
        model: Any = loaded.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]  # transformers' wrapper of `to`
        config = model.config
        self.architecture = architecture
        self.device = device
        self.most_slices = MOST_SLICES_ON_GPU if device.type == "cuda" else math.inf
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
        self.projections = [projection for layer in layers.values() for projection in layer.projections]
        if self.embedding_projection is not None:
            self.projections.append(self.embedding_projection)
        head_modules = {path: model.get_submodule(path) for path, _activation in architecture.head}
        self.head = {path: (module.weight, module.bias) for path, module in head_modules.items()}

        from transformers.activations import ACT2FN  # deferred like every import of transformers

        self.activation = ACT2FN[activation_name(config)]

    @torch.inference_mode()
    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        """Return the outputs in the order of `rows`, on the CPU."""
        order = sorted(range(len(rows)), key=lambda i: _place(rows[i]))
        adapters = [_adapter_of(rows[i]) for i in order]
        layouts = [adapter.layout for adapter in adapters]
        token_parts = self._split(adapters, layouts, [len(rows[i].ids) for i in order])
        text_parts = self._split(adapters, layouts, [1] * len(order))
        head_parts = self._split(adapters, [adapter.head_layout for adapter in adapters], [1] * len(order))
        layout = TokenLayout([rows[i] for i in order], self.device)
        places = {"input_ids": layout.ids[None], "position_ids": layout.positions[None] + self.first_position}
        if layout.types is not None:
            places["token_type_ids"] = layout.types[None]
        x = self.embeddings(**places)[0]
        if self.embedding_projection is not None:
            x = self.embedding_projection(x, token_parts)
        for layer in self.layers[:-1]:
            query, key, value = self._query_key_value(layer, x, layout, token_parts)
            context = scaled_dot_product_attention(query, key, value, attn_mask=layout.attention_mask)
            context = layout.rectangle.unpad(context.transpose(1, 2).flatten(2))
            x = self._feed_forward(layer, x, context, token_parts)
        last = self.layers[-1]
        query, key, value = self._query_key_value(last, x, layout, token_parts)
        context = scaled_dot_product_attention(query[:, :, :1], key, value, attn_mask=layout.attention_mask)
        x = x.index_select(0, layout.first_tokens)
        first = self._feed_forward(last, x, context.transpose(1, 2).flatten(1), text_parts)
        results = [result for part in head_parts for result in part.classify(first)]
        results = move_together(results, torch.device("cpu"))
        logits = [row for result in results[::2] for row in result]
        features = [row for result in results[1::2] for row in result]
        output_of_row = dict(zip(order, map(RowOutput, logits, features), strict=True))
        return [output_of_row[i] for i in range(len(order))]

    def _split(self, adapters: list[ServedAdapter], layouts: list[str], lengths: list[int]) -> list[AdapterRows]:
        return split_batch(adapters, layouts, lengths, self.most_slices, self.device)

    def _query_key_value(
        self, layer: SharedLayer, x: Tensor, layout: TokenLayout, parts: list[AdapterRows]
    ) -> tuple[Tensor, ...]:
        """Return query, key and value of x: (tokens, width), each (rows, heads, longest, width of a head)."""
        qkv = layout.rectangle.pad(layer.qkv(x, parts))
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def _feed_forward(self, layer: SharedLayer, x: Tensor, context: Tensor, parts: list[AdapterRows]) -> Tensor:
        """Compute what follows attention: (rows, width) for x and context: (rows, width)."""
        x = layer.attention_norm(layer.output(context, parts).add_(x))
        inner = self.activation(layer.up(x, parts))
        return layer.output_norm(layer.down(inner, parts).add_(x))


def _adapter_of(row: BatchRow) -> ServedAdapter:
    assert row.adapter is not None
    return row.adapter


def _place(row: BatchRow) -> tuple[str, str, int, int]:
    """Return what rows are sorted by: adapters of equal shapes lie beside each other, and so do the texts of each one."""
    adapter = _adapter_of(row)
    return adapter.layout, adapter.head_layout, id(adapter), len(row.ids)
