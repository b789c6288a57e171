"""Fused forward passes through a whole encoder: embeddings, layers, and for a classifier its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.kernels.attention import Batch, PackedBatch, PackedTexts, PaddedBatch, has_flash_attention
from engine.kernels.layer import FusedLayer
from engine.kernels.projection import take_over_adapters
from engine.models.architectures import EncoderArchitecture, activation_name, find_architecture

if TYPE_CHECKING:  # importing transformers and peft takes seconds
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


class FusedBody:
    """An encoder without its head (BertModel and the like): (rows, length) ids and mask → hidden states.

    packed: compute no padding. Ids and mask are best on the CPU then, even for a GPU.
    deterministic: use no operation that sums in any order.
    all_tokens: the last layer is computed for all tokens, not only for the first one of each text.
    """

    def __init__(
        self,
        body: PreTrainedModel,
        architecture: EncoderArchitecture,
        packed: bool,
        deterministic: bool,
        int8: bool = False,
        all_tokens: bool = False,
    ) -> None:
        self.embeddings = body.get_submodule("embeddings")
        self.first_position = architecture.first_position(body.config) if packed else 0
        layers = [body.get_submodule(path) for path in architecture.layer_paths(body.config)]
        heads = body.config.num_attention_heads
        # One token of each text, all that a classifier of texts reads, is too little work for int8 to pay off.
        self.layers = [FusedLayer(layer, architecture.modules, heads, int8) for layer in layers[:-1]]
        self.layers.append(FusedLayer(layers[-1], architecture.modules, heads, int8 and all_tokens))
        weight = self.layers[0].output.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.packed = packed
        self.flash = not deterministic and has_flash_attention(self.device, self.dtype, len(weight) // heads)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the states after the last layer: (rows, length, width)."""
        hidden, batch = self.embed(input_ids, attention_mask, token_type_ids)
        for layer in self.layers:
            hidden = layer(hidden, batch, training=False)
        return batch.rectangle(hidden)

    def embed(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Batch]:
        """Return the first layer's input: (tokens, width), and the batch."""
        if self.packed:
            types = None if token_type_ids is None else token_type_ids.cpu()
            texts = PackedTexts.pack(input_ids.cpu(), attention_mask.cpu(), self.dtype, types)
            return self.embed_packed(texts.to(self.device))
        types_of_pairs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        with torch.no_grad():
            hidden = self.embeddings(input_ids=input_ids, **types_of_pairs).flatten(0, 1)
        return hidden, PaddedBatch.of(attention_mask, self.dtype)

    def embed_packed(self, texts: PackedTexts) -> tuple[Tensor, Batch]:
        """Return the first layer's input: (tokens, width), and the batch, for texts on the encoder's device."""
        batch = PackedBatch(texts, self.flash)
        positions = batch.positions[None] + self.first_position
        types_of_pairs = {} if batch.types is None else {"token_type_ids": batch.types[None]}
        with torch.no_grad():
            return self.embeddings(input_ids=batch.ids[None], position_ids=positions, **types_of_pairs)[0], batch


class FusedForward:
    """A classifier with a LoRA adapter: (rows, length) ids, mask and perhaps token types → (rows, labels) logits.

    all_tokens: every token is classified, so the logits are (rows, length, labels).
    """

    def __init__(
        self, model: Any, body: FusedBody, run_head: Callable[[Any, Tensor], Tensor], all_tokens: bool = False
    ) -> None:
        self.model = model
        self.body = body
        self.run_head = run_head
        self.all_tokens = all_tokens
        self.groups = [group for layer in body.layers for group in layer.groups]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the logits. They have gradients for the adapter and the head when the model is in training mode."""
        return self.logits(*self.body.embed(input_ids, attention_mask, token_type_ids))

    def packed_logits(self, texts: PackedTexts) -> Tensor:
        """Return the logits of packed texts, as a call does; waits for nothing that the device computes."""
        return self.logits(*self.body.embed_packed(texts))

    def logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the logits for the first layer's input: (tokens, width)."""
        training = self.model.training
        take_over_adapters(self.groups, training)
        for layer in self.body.layers[:-1]:
            hidden = layer(hidden, batch, training)
        last = self.body.layers[-1]
        if self.all_tokens:
            return self.run_head(self.model, batch.rectangle(last(hidden, batch, training)))
        if training and any(group.dropout for group in last.groups):
            # Dropout of the adapters' inputs is drawn for every token, so all tokens have to be computed.
            first = batch.rectangle(last(hidden, batch, training))[:, 0]
        else:
            first = last.first_token(hidden, batch)
        return self.run_head(self.model, first[:, None].to(hidden.dtype))


def fused_forward(
    peft_model: PeftModel,
    int8: bool = False,
    packed: bool = False,
    deterministic: bool = False,
    all_tokens: bool = False,
) -> FusedForward | None:
    """Return the fused forward pass of a PEFT classifier, or None if any part of it is not covered.

    int8: compute products with the frozen bf16 weights in int8 in training steps, except in the last layer.
    packed, deterministic: see FusedBody. all_tokens: the model classifies every token.
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
    run_head = run_token_head if all_tokens else architecture.run_head
    assert run_head is not None
    body = FusedBody(model.get_submodule(architecture.body), architecture, packed, deterministic, int8, all_tokens)
    return FusedForward(model, body, run_head, all_tokens)


def fused_body(body: PreTrainedModel, packed: bool = False) -> FusedBody | None:
    """Return the fused forward pass of an encoder without a head, or None if any part of it is not covered.

    For inference only: it computes without dropout and without int8. packed: see FusedBody.
    """
    architecture = _fused_architecture(body.config)
    return None if architecture is None else FusedBody(body, architecture, packed, deterministic=False)


def run_token_head(model: Any, hidden: Tensor) -> Tensor:
    """Return the logits of every token: (rows, length, width) → (rows, length, labels). All architectures have the same head."""
    logits: Tensor = model.classifier(model.dropout(hidden))
    return logits


def _fused_architecture(config: PretrainedConfig) -> EncoderArchitecture | None:
    architecture = find_architecture(config.to_dict())
    if architecture is None or architecture.run_head is None or activation_name(config) != "gelu":
        return None
    return architecture
