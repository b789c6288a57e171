"""The encoder architectures that the fused kernels and the shared base models of serving cover, as one table.

Every other model still works: it is trained with transformers' own operations and served as a merged copy of its own.
To add an architecture, add an entry here; engine/tests/test_kernels.py and test_serve.py compare it with plain PEFT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing torch and transformers takes seconds
    from torch import Tensor
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class LayerModules:
    """Paths of the modules of one encoder layer, relative to the layer."""

    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str

    @property
    def projections(self) -> tuple[str, ...]:
        """Return the paths of every linear module of the layer."""
        return (self.query, self.key, self.value, self.output, self.up, self.down)


@dataclass(frozen=True, slots=True)
class EncoderArchitecture:
    """Where a transformers classifier with an encoder keeps its modules.

    body: path of the encoder in the classifier.
    layers: path of layer {index} in the body, or of layer group {group} where layers share their weights.
    head: the linear modules from the first token's state to the logits, each with the activation after it ("" for none).
    run_head: the model's own head, with its dropout, on (rows, 1, width); None if the fused kernels do not cover the
        architecture. It calls whole modules, so that PEFT's wrappers and our forward hooks of a trained head still run.
    embedding_projection: path, in the body, of the linear module that widens narrow embeddings.
    positions_after_padding: positions start after the padding index, as in fairseq.
    """

    body: str
    layers: str
    modules: LayerModules
    head: tuple[tuple[str, str], ...]
    run_head: Callable[[Any, Tensor], Tensor] | None
    embedding_projection: str = ""
    positions_after_padding: bool = False

    def layer_paths(self, config: PretrainedConfig) -> list[str]:
        """Return the paths of the layers in the body, in the order in which a text passes through them.

        A path comes several times where layers share their weights.
        """
        count = config.num_hidden_layers
        groups = getattr(config, "num_hidden_groups", 1)
        return [self.layers.format(index=i, group=i * groups // count) for i in range(count)]

    def first_position(self, config: PretrainedConfig) -> int:
        """Return the index of a text's first position embedding.

        Raises ValueError if it depends on a padding index that config.json lacks.
        """
        if not self.positions_after_padding:
            return 0
        padding = config.pad_token_id
        if not isinstance(padding, int):
            raise ValueError("config.json of the base model has no pad_token_id")
        return padding + 1


BERT_LAYER = LayerModules(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)
BERT = EncoderArchitecture(
    body="bert",
    layers="encoder.layer.{index}",
    modules=BERT_LAYER,
    head=(("bert.pooler.dense", "tanh"), ("classifier", "")),
    run_head=lambda model, hidden: model.classifier(model.dropout(model.bert.pooler(hidden))),
)
ROBERTA = EncoderArchitecture(
    body="roberta",
    layers="encoder.layer.{index}",
    modules=BERT_LAYER,
    head=(("classifier.dense", "tanh"), ("classifier.out_proj", "")),
    run_head=lambda model, hidden: model.classifier(hidden),
    positions_after_padding=True,
)
DISTILBERT = EncoderArchitecture(
    body="distilbert",
    layers="transformer.layer.{index}",
    modules=LayerModules(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
    ),
    head=(("pre_classifier", "relu"), ("classifier", "")),
    run_head=lambda model, hidden: model.classifier(model.dropout(model.pre_classifier(hidden[:, 0]).relu())),
)
ALBERT = EncoderArchitecture(
    body="albert",
    layers="encoder.albert_layer_groups.{group}.albert_layers.0",
    modules=LayerModules(
        query="attention.query",
        key="attention.key",
        value="attention.value",
        output="attention.dense",
        attention_norm="attention.LayerNorm",
        up="ffn",
        down="ffn_output",
        output_norm="full_layer_layer_norm",
    ),
    head=(("albert.pooler", "tanh"), ("classifier", "")),
    run_head=None,  # the fused kernels keep one set of adapter gradients per layer, and here layers share theirs
    embedding_projection="encoder.embedding_hidden_mapping_in",
)
ARCHITECTURES = {
    "albert": ALBERT,
    "bert": BERT,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}


def find_architecture(config: dict[str, Any]) -> EncoderArchitecture | None:
    """Return the architecture of a base model by the content of its config.json; None if it is not covered here.

    Relative positions, groups of several layers (ALBERT) and decoders would need other operations than the table names.
    """
    absolute_positions = config.get("position_embedding_type", "absolute") in ("absolute", None)
    one_layer_per_group = config.get("inner_group_num", 1) == 1
    if not absolute_positions or not one_layer_per_group or config.get("is_decoder"):
        return None
    return ARCHITECTURES.get(config.get("model_type", ""))


def activation_name(config: PretrainedConfig) -> str:
    """Return the name of the activation between the two linear modules of a layer's feed-forward part."""
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation", None))
