"""Settle what becomes of the classification head that a base model brings along, and which modules are trained in full.

The head's rows are the labels of whoever trained it. Rows that stand for other labels are worse than random ones, so they
are used only where the names of the labels say which row is which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from engine.events import Notice
from engine.models.loaded_weights import missing_paths
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:  # importing transformers takes seconds
    import numpy as np
    from transformers import PreTrainedModel

MOST_NAMES = 5  # of labels in a notice
# Names of the head's last module for which an own head of a fitting size has always been trained. The layers before it stay
# as they were, so that checkpoints of earlier versions resume.
USUAL_OUTPUTS = ("classifier", "score")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a classifier that is ready to be trained.

    modules: names of the modules that are trained in full and saved with the adapter.
    origin: new (the base model has none), kept, reordered, or replaced (its labels are not those of the data).
    """

    modules: list[str]
    origin: Literal["new", "kept", "reordered", "replaced"]
    notices: list[Notice]


def settle_head(model: PreTrainedModel, labels: Sequence[str], config: dict[str, Any], loading: dict[str, Any]) -> Head:
    """Put the rows of the base model's own head into the order of `labels`, or make the head new; return what it is then.

    config: the base model's config.json. loading: the report of from_pretrained.
    """
    output = output_path(model)
    modules = trained_modules(model, output, missing_paths(loading))
    if output is None or f"{output}.weight" in loading["missing_keys"]:
        return Head(modules, "new", [])
    for key, in_file, _in_model in loading["mismatched_keys"]:
        if key == f"{output}.weight":
            message = Sentence(
                gettext_noop(
                    "The base model's own head was replaced by a new one: it has {outputs} outputs, and the data have {labels} labels."
                ),
                outputs=in_file[0],
                labels=len(labels),
            )
            return Head(modules, "replaced", _notice(message))
    layer: Any = model.get_submodule(output)
    own_labels = row_names(config, len(labels))
    order = row_order(own_labels, labels)
    if order is None:
        # As transformers initialises a head that the files lack.
        std = getattr(model.config, "initializer_range", None) or getattr(model.config, "init_std", None) or 0.02
        nn.init.normal_(layer.weight.data, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias.data)
        names = ", ".join(own_labels[:MOST_NAMES]) + (", …" if len(own_labels) > MOST_NAMES else "")
        message = Sentence(
            gettext_noop(
                "The base model's own head was replaced by a new one, because its labels ({names}) are not those of the data."
            ),
            names=names,
        )
        return Head(modules, "replaced", _notice(message))
    if order == list(range(len(labels))):
        message = Sentence(
            gettext_noop("The base model's own head is trained further: its labels are those of the data.")
        )
        return Head(modules, "kept", _notice(message))
    layer.weight.data = layer.weight.data[order].contiguous()
    if layer.bias is not None:
        layer.bias.data = layer.bias.data[order].contiguous()
    message = Sentence(
        gettext_noop(
            "The base model's own head is trained further: its labels are those of the data, into whose order its rows were put."
        )
    )
    return Head(modules, "reordered", _notice(message))


def row_names(config: dict[str, Any], count: int) -> list[str]:
    """Return what config.json calls the `count` rows of the head; where it is silent, as transformers does."""
    names = config.get("id2label")
    names = names if isinstance(names, dict) else {}
    return [str(names.get(str(row), f"LABEL_{row}")) for row in range(count)]


def row_order(own_labels: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Return the row of each label in a head whose rows are `own_labels`; None unless both have the same names, case aside."""
    own = [label.strip().casefold() for label in own_labels]
    wanted = [label.strip().casefold() for label in labels]
    if len(set(own)) < len(own) or sorted(own) != sorted(wanted):
        return None
    return [own.index(label) for label in wanted]


def output_path(model: PreTrainedModel) -> str | None:
    """Return the path of the linear module that computes the logits: the last one outside of the body with a row per label."""
    body = f"{model.base_model_prefix}."
    last_output = None
    for path, module in model.named_modules():
        if (
            isinstance(module, nn.Linear)
            and not path.startswith(body)
            and module.out_features == model.config.num_labels
        ):
            last_output = path
    return last_output


def set_output_bias(model: PreTrainedModel, bias: np.ndarray) -> None:
    """Set the bias of the module that computes the logits, where it has one: (outputs,)."""
    output = output_path(model)
    layer: Any = model.get_submodule(output) if output else None
    if layer is not None and layer.bias is not None:
        layer.bias.data.copy_(torch.from_numpy(bias))


def trained_modules(model: PreTrainedModel, output: str | None, new_paths: set[str]) -> list[str]:
    """Return the names of the modules to train in full: those with new weights, and whatever computes the logits.

    A pooler in the body counts too: many base models were trained without one.
    """
    body = model.base_model_prefix
    outer = {name for name, module in model.named_children() if name != body and any(True for _ in module.parameters())}
    modules = {path.partition(".")[0] for path in new_paths} & outer
    modules |= {"pooler" for path in new_paths if path.split(".")[1:2] == ["pooler"]}
    last = (output or "classifier").partition(".")[0]
    return sorted(modules | ({last} if last in USUAL_OUTPUTS else outer))


def _notice(message: str) -> list[Notice]:
    return [Notice("info", "base_model_head", message)]
