"""Estimate the memory that the activations of a micro-batch take.

Per token, each layer keeps a fixed count of numbers for the backward pass, in multiples of the encoder's width and of
its feed-forward width, and one number per head for each pair of tokens. The multiples were measured on MiniLM-L6 and
bert-base: within 10 % for the fused encoder, within 20 % for transformers' own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.devices import DevicePlan
from engine.models.causal import LOGITS_AT_A_TIME

# The names of one size in the config.json of different architectures.
WIDTH_NAMES = ("hidden_size", "dim", "d_model", "n_embd")
FEED_FORWARD_NAMES = ("intermediate_size", "hidden_dim", "d_ff", "n_inner")
HEADS_NAMES = ("num_attention_heads", "n_heads", "num_heads", "n_head")
LAYERS_NAMES = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
# By precision, what a layer of a decoder keeps per token, in multiples of its width and its feed-forward width. In bf16, PEFT's own
# layers keep their input in fp32 as well.
DECODER_MULTIPLES = {"fp32": (9, 4), "bf16": (22, 6), "int8": (15, 4)}


@dataclass(frozen=True, slots=True)
class EncoderSizes:
    """Sizes of a transformer encoder."""

    width: int
    feed_forward: int
    heads: int
    layers: int

    @classmethod
    def from_base_model(cls, base: Path) -> EncoderSizes:
        """Read the sizes from the base model's config.json; a missing one is assumed to be that of bert-base."""
        config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config |= config.get("text_config") or {}  # of models that read images too

        def size(names: tuple[str, ...], default: int) -> int:
            for name in names:
                if config.get(name):
                    return int(config[name]) or default
            return default

        width = size(WIDTH_NAMES, 768)
        return cls(
            width=width,
            feed_forward=size(FEED_FORWARD_NAMES, 4 * width),
            heads=size(HEADS_NAMES, 12),
            layers=size(LAYERS_NAMES, 12),
        )


@dataclass(frozen=True, slots=True)
class ActivationMemory:
    """Bytes of a micro-batch's activations."""

    encoder: EncoderSizes
    plan: DevicePlan
    adapted_everywhere: bool  # a layer with an adapter keeps its input for the adapter's gradient
    dora: bool = False  # DoRA keeps the outputs of both the frozen layer and the adapter

    def training(self, rows: int, length: int) -> float:
        """Return the bytes of forward and backward for `rows` texts padded to `length` tokens.

        All layers keep their activations until the backward pass has used them.
        """
        return self.encoder.layers * self.bytes_per_layer(rows, length)

    def evaluation(self, rows: int, length: int) -> float:
        """Return the bytes without gradients: only one layer's activations are alive at a time."""
        return 1.5 * self.bytes_per_layer(rows, length)

    def bytes_per_layer(self, rows: int, length: int) -> float:
        """Return the bytes that one layer keeps for its backward pass, for `rows` texts padded to `length` tokens."""
        widths = 6
        if self.adapted_everywhere:
            widths = 7 if self.plan.fused_encoder else 10
        feed_forwards = 2 if self.adapted_everywhere else 1
        numbers = rows * length * (widths * self.encoder.width + feed_forwards * self.encoder.feed_forward)
        if self.plan.attention != "sdpa":  # which never holds the whole attention matrix
            numbers += rows * self.encoder.heads * length**2

        bytes_per_number: float = self.plan.dtype.itemsize
        if bytes_per_number == 2 and not self.plan.fused_encoder:
            bytes_per_number *= 1.5  # PEFT's own layers keep their input in fp32 as well
        if self.dora:
            bytes_per_number *= 1.75 if self.adapted_everywhere else 1.2
        return numbers * bytes_per_number


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """Sizes of a language model."""

    encoder: EncoderSizes
    vocabulary: int

    @classmethod
    def from_base_model(cls, base: Path) -> DecoderSizes:
        """Read the sizes from the base model's config.json."""
        config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
        return cls(EncoderSizes.from_base_model(base), int(config.get("vocab_size") or 50_000))


@dataclass(frozen=True, slots=True)
class DecoderMemory:
    """Bytes of the activations of a micro-batch of packed conversations, which have no padding.

    The multiples are those of the tensors that torch keeps for a backward pass of SmolLM2-135M.
    """

    sizes: DecoderSizes
    plan: DevicePlan
    adapted_everywhere: bool  # a layer with an adapter keeps its input for the adapter's gradient
    recomputes: bool = False  # a layer keeps its input alone until its backward pass computes it again

    def training(self, rows: int, length: int) -> float:
        """Return the bytes of forward and backward for `rows` conversations of `length` tokens."""
        encoder = self.sizes.encoder
        if self.recomputes:
            inputs = float(self.plan.dtype.itemsize * encoder.layers * rows * length * encoder.width)
            return inputs + self.bytes_per_layer(rows * length) + self.bytes_of_logits(rows * length)
        return encoder.layers * self.bytes_per_layer(rows * length) + self.bytes_of_logits(rows * length)

    def evaluation(self, rows: int, length: int) -> float:
        """Return the bytes without gradients: one layer's activations, and a chunk of logits."""
        return 1.5 * self.bytes_per_layer(rows * length) + self.bytes_of_logits(rows * length)

    def bytes_per_layer(self, tokens: int) -> float:
        """Return the bytes that one layer keeps for its backward pass."""
        encoder = self.sizes.encoder
        widths, feed_forwards = DECODER_MULTIPLES[self.plan.precision]
        if not self.adapted_everywhere:
            widths, feed_forwards = widths - 2, feed_forwards - 1
        numbers = widths * encoder.width + feed_forwards * encoder.feed_forward
        return float(self.plan.dtype.itemsize * tokens * numbers)

    def bytes_of_logits(self, tokens: int) -> float:
        """Return the bytes of a chunk of logits in fp32, with their probabilities and gradients."""
        return 4 * 3 * min(LOGITS_AT_A_TIME, tokens * self.sizes.vocabulary)
