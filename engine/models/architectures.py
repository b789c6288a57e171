"""Where the encoders that adapters can share keep their parts. What is not here is served as a copy of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.kernels.encoder import BERT_PARTS, DISTILBERT_PARTS

ALBERT_PARTS = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "output": "attention.dense",
    "norm1": "attention.LayerNorm",
    "up": "ffn",
    "down": "ffn_output",
    "norm2": "full_layer_layer_norm",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of encoders.

    `layers` is the path of layer {i}, or of group {group} where layers share their weights; `head` names the linear
    modules from the first token's state to the logits, each with the activation behind it.
    """

    body: str
    layers: str
    parts: dict[str, str]
    head: tuple[tuple[str, str], ...]
    counts_from_padding: bool = False  # positions begin behind the padding's index, as in fairseq

    def layer_paths(self, config: Any) -> list[str]:
        """The layers in the order in which a text goes through them."""
        number, groups = config.num_hidden_layers, getattr(config, "num_hidden_groups", 1)
        return [self.layers.format(i=i, group=i * groups // number) for i in range(number)]

    def first_position(self, config: Any) -> int:
        return config.pad_token_id + 1 if self.counts_from_padding else 0


def _roberta(body: str) -> Architecture:
    head = (("classifier.dense", "tanh"), ("classifier.out_proj", ""))
    return Architecture(body, f"{body}.encoder.layer.{{i}}", BERT_PARTS, head, counts_from_padding=True)


ARCHITECTURES = {
    "bert": Architecture(
        "bert", "bert.encoder.layer.{i}", BERT_PARTS, (("bert.pooler.dense", "tanh"), ("classifier", ""))
    ),
    "roberta": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
    "camembert": _roberta("roberta"),
    "distilbert": Architecture(
        "distilbert",
        "distilbert.transformer.layer.{i}",
        DISTILBERT_PARTS,
        (("pre_classifier", "relu"), ("classifier", "")),
    ),
    "albert": Architecture(
        "albert",
        "albert.encoder.albert_layer_groups.{group}.albert_layers.0",
        ALBERT_PARTS,
        (("albert.pooler", "tanh"), ("classifier", "")),
    ),
}


def architecture_of(config: dict[str, Any]) -> Architecture | None:
    """The family of a base model by its config.json; None where it has a part that the shared way does not know."""
    plain = config.get("position_embedding_type", "absolute") in ("absolute", None)
    one_layer_per_group = config.get("inner_group_num", 1) == 1
    known = plain and one_layer_per_group and not config.get("is_decoder")
    return ARCHITECTURES.get(config.get("model_type", "")) if known else None
