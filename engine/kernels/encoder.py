"""Fused forward passes through a whole encoder: embeddings, layers, and for a classifier its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.kernels.layer import BatchShape, FusedLayer
from engine.kernels.projection import round_adapters
from engine.models.architectures import EncoderArchitecture, activation_name, find_architecture

if TYPE_CHECKING:  # importing transformers and peft takes seconds
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


class FusedBody:
    """An encoder without its head (BertModel and the like): (rows, length) ids and mask → hidden states."""

    def __init__(self, body: PreTrainedModel, architecture: EncoderArchitecture, int8: bool = False) -> None:
        self.embeddings = body.get_submodule("embeddings")
        layers = [body.get_submodule(path) for path in architecture.layer_paths(body.config)]
        heads = body.config.num_attention_heads
        # The last layer computes only each text's first token, which is too little work for int8 to pay off.
        self.layers = [FusedLayer(layer, architecture.modules, heads, int8) for layer in layers[:-1]]
        self.layers.append(FusedLayer(layers[-1], architecture.modules, heads))

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states after the last layer: (rows, length, width)."""
        hidden, shape = self.embed(input_ids, attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, shape, training=False)
        return hidden.view(shape.rows, shape.length, -1)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, BatchShape]:
        """Return the first layer's input: (tokens, width), and the shape of the batch with its attention mask."""
        rows, length = input_ids.shape
        with torch.no_grad():
            hidden = self.embeddings(input_ids=input_ids).view(rows * length, -1)
        if bool(attention_mask.all()):
            return hidden, BatchShape(rows, length, None)
        # The lowest finite number instead of -inf: softmax makes a row of -inf alone NaN.
        lowest = torch.finfo(hidden.dtype).min
        added_to_scores = (1 - attention_mask[:, None, None, :]).to(hidden.dtype) * lowest
        return hidden, BatchShape(rows, length, added_to_scores)


class FusedForward:
    """A classifier with a LoRA adapter: (rows, length) ids and mask → (rows, labels) logits."""

    def __init__(self, peft_model: PeftModel, architecture: EncoderArchitecture, int8: bool) -> None:
        assert architecture.run_head is not None
        self.model: Any = peft_model.get_base_model()
        self.run_head = architecture.run_head
        body: Any = self.model.get_submodule(architecture.body)
        self.body = FusedBody(body, architecture, int8)
        groups = [group for layer in self.body.layers for group in layer.groups]
        self.rounded_adapters = [adapter for group in groups for adapter in group.rounded_adapters]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits. They have gradients for the adapter and the head when the model is in training mode."""
        round_adapters(self.rounded_adapters)
        training = self.model.training
        hidden, shape = self.body.embed(input_ids, attention_mask)
        for layer in self.body.layers[:-1]:
            hidden = layer(hidden, shape, training)
        last = self.body.layers[-1]
        if training and any(group.dropout for group in last.groups):
            # Dropout of the adapters' inputs is drawn for every token, so all tokens have to be computed.
            first = last(hidden, shape, training).view(shape.rows, shape.length, -1)[:, 0]
        else:
            first = last.first_token(hidden, shape)
        return self.run_head(self.model, first[:, None].to(hidden.dtype))


def fused_forward(peft_model: PeftModel, int8: bool = False) -> FusedForward | None:
    """Return the fused forward pass of a PEFT classifier, or None if any part of it is not covered.

    int8: compute products with the frozen bf16 weights in int8 in training steps, except in the last layer.
    """
    model: Any = peft_model.get_base_model()
    architecture = _fused_architecture(model.config)
    adapter: Any = peft_model.peft_config["default"]
    if architecture is None or adapter.use_dora or adapter.bias != "none":
        return None
    # The hand-written gradients are those of LoRA on the layers' projections. Nothing else below the head may be trained.
    layers = f"{architecture.body}.{architecture.layers.partition('{')[0]}"
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(layers):
            if not any(f".{path}.lora_" in name for path in architecture.modules.projections):
                return None
        elif ".embeddings." in name:
            return None
    return FusedForward(peft_model, architecture, int8)


def fused_body(body: PreTrainedModel) -> FusedBody | None:
    """Return the fused forward pass of an encoder without a head, or None if any part of it is not covered.

    For inference only: it computes without dropout and without int8.
    """
    architecture = _fused_architecture(body.config)
    return None if architecture is None else FusedBody(body, architecture)


def _fused_architecture(config: PretrainedConfig) -> EncoderArchitecture | None:
    architecture = find_architecture(config.to_dict())
    if architecture is None or architecture.run_head is None or activation_name(config) != "gelu":
        return None
    return architecture
