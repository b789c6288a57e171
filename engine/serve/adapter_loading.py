"""Check an adapter's files and load them over a shared base model. An adapter comes from strangers: nothing in it is trusted."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from engine.models.architectures import EncoderArchitecture
from engine.serve.adapter import HeadLayer, LoraPair, ServedAdapter
from engine.serve.errors import ModelUnreadableError
from engine.serve.model_files import WEIGHTS, read_settings, tensor_shapes
from engine.serve.shared_base import SharedBaseModel

PREFIX = "base_model.model."  # PEFT's, before the path of each module
A, B = ".lora_A.weight", ".lora_B.weight"
PLAIN_INITS = (True, "gaussian", None)  # the others change the base model's own weights
# Settings of PEFT that leave an adapter two matrices beside a frozen weight. Any other one that is set may mean more.
HARMLESS_SETTINGS = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}


def can_share_base(folder: Path, architecture: EncoderArchitecture) -> bool:
    """Return whether the adapter is only pairs of matrices and a head, so that it leaves a shared base model as it is.

    Reads the settings and the names of the tensors, not their values. Raises ModelUnreadableError.
    """
    settings = read_settings(folder)
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        return False
    if settings.get("init_lora_weights") not in PLAIN_INITS:
        return False
    if any(value and name not in HARMLESS_SETTINGS for name, value in settings.items()):
        return False
    head = {f"{path}.{kind}" for path, _activation in architecture.head for kind in ("weight", "bias")}
    names = [name.removeprefix(PREFIX) for name in tensor_shapes(folder / WEIGHTS)]
    return all(name in head or name.endswith((A, B)) for name in names)


def load_adapter(folder: Path, base: SharedBaseModel, label_count: int) -> ServedAdapter:
    """Load an adapter over a base model, checked and scaled. Raises ModelUnreadableError if any part of it does not fit."""
    settings = read_settings(folder)
    tensors: dict[str, Tensor] = {}  # by their names in the model; each one that is used is taken out
    # Only safetensors is read: a pickle under that name is refused.
    with safe_open(folder / WEIGHTS, framework="pt", device=str(base.device)) as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            tensor = file.get_tensor(name).float()
            if not bool(tensor.isfinite().all()):
                raise ModelUnreadableError(f"{name.removeprefix(PREFIX)} has values that are not finite")
            tensors[name.removeprefix(PREFIX)] = tensor

    pairs: dict[str, LoraPair] = {}
    for path in [name.removesuffix(A) for name in tensors if name.endswith(A)]:
        a = tensors.pop(path + A)
        b = tensors.pop(path + B, None)
        shape = base.shapes.get(path)
        if b is None or shape is None or (len(b), a.shape[-1]) != shape or a.shape[0] != b.shape[-1]:
            raise ModelUnreadableError(f"its update of {path} does not fit the base model")
        rank = a.shape[0]
        scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        pairs[path] = LoraPair(a.t().contiguous(), (scale * b).t().contiguous())

    head = [_take_head_layer(path, activation, tensors, pairs, base) for path, activation in base.architecture.head]
    if tensors:
        raise ModelUnreadableError(f"the base model has no module for {sorted(tensors)[0]}")
    if len(head[-1].weight) != label_count:
        raise ModelUnreadableError(f"its head has {len(head[-1].weight)} labels, but lorasite.json names {label_count}")
    return ServedAdapter(pairs, head)


def _take_head_layer(
    path: str, activation: str, tensors: dict[str, Tensor], pairs: dict[str, LoraPair], base: SharedBaseModel
) -> HeadLayer:
    """Return a layer of the head: the adapter's own or else the base model's, with the adapter's update merged."""
    weight = tensors.pop(f"{path}.weight", None)
    bias = tensors.pop(f"{path}.bias", None)
    base_weight, base_bias = base.head[path]
    if weight is None or bias is None:
        if path in base.new_modules:
            raise ModelUnreadableError(f"it lacks the weights of {path}, and so does the base model")
        weight, bias = base_weight, base_bias
    pair = pairs.pop(path, None)
    if pair is not None:
        weight = weight + (pair.a @ pair.b).t()
    if weight.shape[1:] != base_weight.shape[1:] or len(weight) != len(bias):
        raise ModelUnreadableError(f"its {path} does not fit the base model")
    return HeadLayer(weight, bias, activation)
