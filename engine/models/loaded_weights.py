"""Refuse a base model whose weights are not what its config.json promises: missing, of another shape, or not numbers.

transformers fills such weights with random ones and goes on. A run over them would end as a success with a wrong model.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import BaseModelUnavailableError
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PreTrainedModel

LARGEST_WEIGHT = 1e6  # fp16, in which most weights are published, ends at 65,504
LONGEST_CAUSE = 300  # characters of another library's sentence
FOLDERS = re.compile(r"(?<![\w/:.])/(?:[^\s/'\"]+/)+")


def missing_paths(loading: dict[str, Any]) -> set[str]:
    """Return the paths of the modules with weights that the files lack or have in another shape."""
    mismatched = (key for key, _in_file, _in_model in loading["mismatched_keys"])
    return {key.rpartition(".")[0] for key in (*loading["missing_keys"], *mismatched)}


def check_loading(model: PreTrainedModel, loading: dict[str, Any], name: str) -> None:
    """Raise BaseModelUnavailableError if any weight outside of the head is missing or has another shape.

    loading: the report of from_pretrained.
    """
    body = f"{model.base_model_prefix}."
    missing = sorted(key for key in loading["missing_keys"] if _is_in_body(key, body))
    if missing:
        more = Sentence(gettext_noop(" and {count} more"), count=len(missing) - 1) if len(missing) > 1 else ""
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The base model {name} lacks weights that its config.json asks for: {missing}{more}. They would be "
                    "random. Download the model again, or choose the config.json that belongs to its weights."
                ),
                name=name,
                missing=missing[0],
                more=more,
            ),
            field="model.name",
            tensors=missing[:20],
        )
    mismatched = sorted(entry for entry in loading["mismatched_keys"] if _is_in_body(entry[0], body))
    if mismatched:
        key, in_file, in_model = mismatched[0]
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The base model {name} does not fit its config.json: {key} has the shape {in_file} in its files, but "
                    "config.json asks for {in_model}. Choose the config.json that belongs to its weights."
                ),
                name=name,
                key=key,
                in_file=_shape(in_file),
                in_model=_shape(in_model),
            ),
            field="model.name",
            tensors=[entry[0] for entry in mismatched[:20]],
        )


def check_values(model: PreTrainedModel, name: str) -> None:
    """Raise BaseModelUnavailableError, with the tensor's name, if a weight is NaN, infinite or absurdly large."""
    embeddings = model.get_input_embeddings()
    for path, tensor in model.named_parameters():
        if not tensor.is_floating_point() or not tensor.numel():
            continue  # weights of bitsandbytes are no plain numbers
        low, high = (value.item() for value in torch.aminmax(tensor))
        fault = None
        if not (math.isfinite(low) and math.isfinite(high)):
            fault = Sentence(gettext_noop("has values that are not finite"))
        elif max(-low, high) > LARGEST_WEIGHT:
            fault = Sentence(
                gettext_noop("has values up to {value:.1e}, which no trained model has"), value=max(-low, high)
            )
        elif low == high and tensor.numel() > 1 and embeddings is not None and tensor is embeddings.weight:
            fault = Sentence(gettext_noop("has the value {low:g} everywhere, so all words are the same"), low=low)
        if fault:
            raise BaseModelUnavailableError(
                Sentence(
                    gettext_noop(
                        "The base model {name} can't be used: {path} {fault}. Download the model again, or choose another one."
                    ),
                    name=name,
                    path=path,
                    fault=fault,
                ),
                field="model.name",
                tensors=[path],
            )


def brief(error: Exception, folder: Path, name: str) -> str:
    """Return another library's message in one line, without the folders of this machine."""
    lines = str(error).strip().splitlines()
    cause = lines[0] if lines else type(error).__name__
    for known in {str(folder), str(folder.resolve())}:
        cause = cause.replace(f"{known}/", "").replace(known, name)
    cause = FOLDERS.sub("", cause)
    return cause if len(cause) <= LONGEST_CAUSE else f"{cause[:LONGEST_CAUSE]}…"


def _is_in_body(key: str, body: str) -> bool:
    """Return whether a weight belongs to what has to come with the base model. A pooler is trained if it is missing."""
    return key.startswith(body) and key.split(".")[1] != "pooler"


def _shape(size: tuple[int, ...]) -> str:
    return " × ".join(str(length) for length in size)
