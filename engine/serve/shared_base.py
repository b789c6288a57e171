"""A base model in memory, once for all adapters over it; a batch may hold texts of several of them.

The tokens of all texts lie end to end, without padding: (tokens, width). Texts of one adapter lie beside each other, so
its low-rank products are those of a slice of rows (the idea of arXiv 2310.18547). Only attention needs a rectangle. The
last layer computes each text's first token alone, since a classifier reads nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from engine.kernels.projection import join_parameters
from engine.models.architectures import EncoderArchitecture, LayerModules
from engine.serve.adapter import Adapter, header
from engine.serve.batch import Output, Row

Segments = list[tuple[slice, Adapter]]


class Projection:
    """Linear layers that read the same input, as one product. weight: (out, in)."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.weight = join_parameters([module.weight for module in modules.values()])
        self.bias = join_parameters([module.bias for module in modules.values()])
        ends = list(accumulate(len(module.weight) for module in modules.values()))
        self.columns = {path: slice(start, end) for path, start, end in zip(modules, [0, *ends], ends, strict=False)}

    def __call__(self, x: Tensor, segments: Segments) -> Tensor:
        """x: (rows, in) → (rows, out), each segment of rows with its adapter's share."""
        y = torch.addmm(self.bias, x, self.weight.t())
        for rows, adapter in segments:
            for path, columns in self.columns.items():
                if pair := adapter.pairs.get(path):
                    y[rows, columns].addmm_(x[rows] @ pair.a, pair.b)
        return y


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer; attention's query, key and value are one projection."""

    qkv: Projection
    output: Projection
    up: Projection
    down: Projection
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm

    @classmethod
    def of(cls, model: nn.Module, path: str, modules: LayerModules) -> Layer:
        def projection(*names: str) -> Projection:
            paths = [f"{path}.{getattr(modules, name)}" for name in names]
            return Projection({each: model.get_submodule(each) for each in paths})

        norms: list[Any] = [
            model.get_submodule(f"{path}.{getattr(modules, name)}") for name in ("attention_norm", "output_norm")
        ]
        return cls(
            projection("query", "key", "value"), projection("output"), projection("up"), projection("down"), *norms
        )


class Places:
    """Where the tokens of each text lie: end to end, and in the rectangle that attention needs."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.rows, self.longest = len(lengths), max(lengths)
        of_each = torch.tensor(lengths, device=device)
        self.first = of_each.cumsum(0) - of_each
        columns = torch.arange(self.longest, device=device)
        self.real = columns < of_each[:, None]
        self.positions = columns.expand(self.rows, -1)[self.real]
        self.padded = min(lengths) < self.longest
        self.places = torch.where(self.real, self.first[:, None] + columns, 0)

    def rectangle(self, x: Tensor) -> Tensor:
        """(tokens, …) → (rows, longest, …)"""
        return x[self.places] if self.padded else x.view(self.rows, self.longest, -1)

    def end_to_end(self, x: Tensor) -> Tensor:
        """(rows, longest, width) → (tokens, width)"""
        return x[self.real] if self.padded else x.reshape(self.rows * self.longest, -1)

    @property
    def mask(self) -> Tensor | None:
        return self.real[:, None, None] if self.padded else None


class Base:
    """See the module. Its weights are frozen: adapters add to what it computes and change nothing of it."""

    def __init__(self, folder: Path, architecture: EncoderArchitecture, device: torch.device) -> None:
        model, self.new_modules = _loaded(folder, device)
        self.architecture, self.device, config = architecture, device, model.config
        self.paths = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        body = model.get_submodule(architecture.body)
        self.embeddings: Any = body.get_submodule("embeddings")
        self.position_offset = architecture.first_position(config)
        mapping = f"{architecture.body}.{architecture.embedding_projection}"
        self.widen = Projection({mapping: model.get_submodule(mapping)}) if mapping in self.paths else None
        paths = [f"{architecture.body}.{path}" for path in architecture.layer_paths(config)]
        layers = {path: Layer.of(model, path, architecture.modules) for path in dict.fromkeys(paths)}
        self.layers = [layers[path] for path in paths]
        self.heads = config.num_attention_heads
        self.activation = _activation(config)
        self.head = {path: _weights(model, path) for path, _activation in architecture.head}
        self.shapes = {path: tuple(_weights(model, path)[0].shape) for path in self.paths}

    @torch.inference_mode()
    def outputs(self, rows: list[Row]) -> list[Output]:
        """In the order of `rows`; the rows of one adapter are computed beside each other."""
        order = sorted(range(len(rows)), key=lambda i: (id(rows[i].adapter), len(rows[i].ids)))
        found = self._sorted_outputs([rows[i] for i in order])
        back = dict(zip(order, found, strict=True))
        return [back[i] for i in range(len(rows))]

    def _sorted_outputs(self, rows: list[Row]) -> list[Output]:
        places = Places([len(row.ids) for row in rows], self.device)
        of_texts = _segments([(row.adapter, 1) for row in rows])
        of_tokens = _segments([(row.adapter, len(row.ids)) for row in rows])
        x = self._embedded(rows, places, of_tokens)
        for layer in self.layers[:-1]:
            x = self._layer(layer, x, self._context(layer, x, places, of_tokens), of_tokens)
        first = self._first_context(x, places, of_tokens)
        x = self._layer(self.layers[-1], x[places.first], first, of_texts)
        return [output for texts, adapter in of_texts for output in adapter.head_outputs(x[texts])]

    def _embedded(self, rows: list[Row], places: Places, segments: Segments) -> Tensor:
        ids = torch.tensor([[number for row in rows for number in row.ids]], device=self.device)
        x = self.embeddings(input_ids=ids, position_ids=places.positions[None] + self.position_offset)[0]
        return self.widen(x, segments) if self.widen else x

    def _context(self, layer: Layer, x: Tensor, places: Places, segments: Segments) -> Tensor:
        query, key, value = self._heads(places.rectangle(layer.qkv(x, segments)))
        context = scaled_dot_product_attention(query, key, value, attn_mask=places.mask)
        return places.end_to_end(context.transpose(1, 2).flatten(2))

    def _first_context(self, x: Tensor, places: Places, segments: Segments) -> Tensor:
        """What each text's first token has read of its text: (rows, width)."""
        query, key, value = self._heads(places.rectangle(self.layers[-1].qkv(x, segments)))
        context = scaled_dot_product_attention(query[:, :, :1], key, value, attn_mask=places.mask)
        return context.transpose(1, 2).flatten(1)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(rows, length, 3 × width) → query, key and value, each (rows, heads, length, width of a head)."""
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def _layer(self, layer: Layer, x: Tensor, context: Tensor, segments: Segments) -> Tensor:
        """What follows attention: (rows, width) → (rows, width)."""
        x = layer.norm1(layer.output(context, segments).add_(x))
        inner = self.activation(layer.up(x, segments))
        return layer.norm2(layer.down(inner, segments).add_(x))


def memory_of(folder: Path) -> int:
    """Bytes that the weights in a folder's safetensors take as fp32, without reading them."""
    shapes = [shape for path in folder.glob("*.safetensors") for shape in header(path).values()]
    return 4 * sum(math.prod(shape) for shape in shapes)


def _loaded(folder: Path, device: torch.device) -> tuple[Any, set[str]]:
    """The model, and the paths of modules whose weights its file lacks."""
    from transformers import AutoModelForSequenceClassification

    model, loading = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    new = {str(key).rpartition(".")[0] for key in loading["missing_keys"]}
    return model.to(device).eval().requires_grad_(False), new


def _segments(lengths: list[tuple[Adapter, int]]) -> Segments:
    """Neighbours of one adapter as one slice."""
    found, start = [], 0
    for _same, group in groupby(lengths, key=lambda pair: id(pair[0])):
        members = list(group)
        end = start + sum(length for _adapter, length in members)
        found.append((slice(start, end), members[0][0]))
        start = end
    return found


def _activation(config: Any) -> Any:
    from transformers.activations import ACT2FN

    return ACT2FN[getattr(config, "hidden_act", None) or config.activation]


def _weights(model: nn.Module, path: str) -> tuple[Tensor, Tensor]:
    module: Any = model.get_submodule(path)
    return module.weight, module.bias
