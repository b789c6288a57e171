"""Which models can go the fused way, and the way itself: embeddings, layers, head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.kernels.layer import Layer, Shape
from engine.kernels.projection import round_adapters

BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
DISTILBERT_PARTS = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm2": "output_layer_norm",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where a model keeps its parts, and its own head: (rows, 1, width) → (rows, labels)."""

    body: str
    layers: str
    parts: dict[str, str]
    head: Callable[[Any, Tensor], Tensor]


def _bert_head(model: Any, hidden: Tensor) -> Tensor:
    return model.classifier(model.dropout(model.bert.pooler(hidden)))


def _roberta_head(model: Any, hidden: Tensor) -> Tensor:
    return model.classifier(hidden)


def _distilbert_head(model: Any, hidden: Tensor) -> Tensor:
    return model.classifier(model.dropout(model.pre_classifier(hidden[:, 0]).relu()))


ARCHITECTURES = {
    "bert": Architecture("bert", "bert.encoder.layer", BERT_PARTS, _bert_head),
    "roberta": Architecture("roberta", "roberta.encoder.layer", BERT_PARTS, _roberta_head),
    "xlm-roberta": Architecture("roberta", "roberta.encoder.layer", BERT_PARTS, _roberta_head),
    "camembert": Architecture("roberta", "roberta.encoder.layer", BERT_PARTS, _roberta_head),
    "distilbert": Architecture("distilbert", "distilbert.transformer.layer", DISTILBERT_PARTS, _distilbert_head),
}


class FusedBody:
    """(rows, length) ids and mask → hidden states, through the weights of a model's body (BertModel and the like)."""

    def __init__(self, body: Any, architecture: Architecture, int8: bool = False) -> None:
        self.embeddings = body.get_submodule("embeddings")
        layers = body.get_submodule(architecture.layers.partition(".")[2])
        last = len(layers) - 1
        self.layers = [
            _layer(module, architecture, body.config, int8 and index < last) for index, module in enumerate(layers)
        ]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """After the last layer: (rows, length, width)."""
        hidden, shape = self.before(input_ids, attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, shape, False)
        return hidden.view(shape.rows, shape.length, -1)

    def before(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Shape]:
        """What goes into the first layer: (tokens, width)."""
        rows, length = input_ids.shape
        with torch.no_grad():
            hidden = self.embeddings(input_ids=input_ids).view(rows * length, -1)
        return hidden, Shape(rows, length, _added_mask(attention_mask, hidden.dtype))


class FusedForward:
    """(rows, length) ids and mask → (rows, labels) logits, through the weights of a PEFT model."""

    def __init__(self, peft_model: Any, architecture: Architecture, int8: bool) -> None:
        self.model, self.head = peft_model.get_base_model(), architecture.head
        self.body = FusedBody(self.model.get_submodule(architecture.body), architecture, int8)
        groups = [group for layer in self.body.layers for group in layer.groups]
        self.rounded = [adapter for group in groups for adapter in group.rounded]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        round_adapters(self.rounded)
        hidden, shape = self.body.before(input_ids, attention_mask)
        training = self.model.training
        for layer in self.body.layers[:-1]:
            hidden = layer(hidden, shape, training)
        first = self._first_token(self.body.layers[-1], hidden, shape, training)
        return self.head(self.model, first[:, None].to(hidden.dtype))

    def _first_token(self, layer: Layer, hidden: Tensor, shape: Shape, training: bool) -> Tensor:
        if training and any(group.dropout for group in layer.groups):
            return layer(hidden, shape, training).view(shape.rows, shape.length, -1)[:, 0]
        return layer.first_token(hidden, shape)


def fused_forward(peft_model: Any, int8: bool = False) -> FusedForward | None:
    """The fused way through a PEFT model, or None where it has a part that this way does not know.

    `int8`: bf16 weights, whose products in training are in int8, but those of the last layer, which are few.
    """
    model = peft_model.get_base_model()
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None or not _known(peft_model, model, architecture):
        return None
    return FusedForward(peft_model, architecture, int8)


def fused_body(body: Any) -> FusedBody | None:
    """The fused way through a bare encoder, for its hidden states; None where it has a part that this way does not know."""
    architecture = ARCHITECTURES.get(body.config.model_type)
    return FusedBody(body, architecture) if architecture and _plain(body.config) else None


def _known(peft_model: Any, model: Any, architecture: Architecture) -> bool:
    adapter = peft_model.peft_config["default"]
    plain = not adapter.use_dora and adapter.bias == "none"
    return plain and _plain(model.config) and not _strays(model, architecture)


def _plain(config: Any) -> bool:
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    absolute = getattr(config, "position_embedding_type", "absolute") in {"absolute", None}
    return activation == "gelu" and absolute and not getattr(config, "is_decoder", False)


def _strays(model: Any, architecture: Architecture) -> list[str]:
    """Trained parameters in the body that are not LoRA of a known projection."""
    projections = [path for name, path in architecture.parts.items() if not name.startswith("norm")]
    strays = []
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{architecture.layers}.")
        known = any(f".{path}.lora_" in name for path in projections) if inside else ".embeddings." not in name
        if parameter.requires_grad and not known:
            strays.append(name)
    return strays


def _layer(module: nn.Module, architecture: Architecture, config: Any, int8: bool) -> Layer:
    parts = {name: module.get_submodule(path) for name, path in architecture.parts.items()}
    return Layer(parts, config.num_attention_heads, int8)


def _added_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores: 0 for a token, the lowest number for padding: (rows, 1, 1, length)."""
    if bool(attention_mask.all()):
        return None
    lowest = torch.finfo(dtype).min
    return (1 - attention_mask[:, None, None, :]).to(dtype) * lowest
