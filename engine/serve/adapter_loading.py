"""Check an adapter's files and load them over a shared base model. An adapter comes from strangers: nothing in it is trusted."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from engine.serve.adapter import HeadLayer, ProjectionUpdate, ServedAdapter, UpdateShape
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
    "fan_in_fan_out",
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


class AdaptedLayer(Protocol):
    """Linear modules of a base model that are one product. columns: each module's part of the output."""

    name: str
    columns: dict[str, slice]

    @property
    def inputs(self) -> int:
        """Return the numbers of a row that is multiplied."""
        ...


class AdaptedBase(Protocol):
    """A base model that adapters share. shapes: of the weights of all linear modules, (out, in)."""

    device: torch.device
    shapes: dict[str, tuple[int, ...]]

    @property
    def projections(self) -> Sequence[AdaptedLayer]:
        """Return what adapters may change."""
        ...


def can_share_base(folder: Path, head_modules: Collection[str]) -> bool:
    """Return whether the adapter is only pairs of matrices and a head, so that it leaves a shared base model as it is.

    head_modules: paths of the modules of which an adapter may bring its own.
    Reads the settings and the names of the tensors, not their values. Raises ModelUnreadableError.
    """
    settings = read_settings(folder)
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        return False
    if settings.get("init_lora_weights") not in PLAIN_INITS:
        return False
    if any(value and name not in HARMLESS_SETTINGS for name, value in settings.items()):
        return False
    head = {f"{path}.{kind}" for path in head_modules for kind in ("weight", "bias")}
    names = [name.removeprefix(PREFIX) for name in tensor_shapes(folder / WEIGHTS)]
    return all(name in head or name.endswith((A, B)) for name in names)


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The update of one linear module, on the CPU. a: (rank, in); b: (out, rank), scaled."""

    a: Tensor
    b: Tensor


def load_adapter(folder: Path, base: SharedBaseModel, label_count: int) -> ServedAdapter:
    """Load an adapter over a base model, checked and scaled. Raises ModelUnreadableError if any part of it does not fit."""
    tensors = _read_tensors(folder / WEIGHTS)
    pairs = _take_pairs(folder, tensors, base)
    head = [_take_head_layer(path, activation, tensors, pairs, base) for path, activation in base.architecture.head]
    if tensors:
        raise ModelUnreadableError(f"the base model has no module for {sorted(tensors)[0]}")
    if len(head[-1].weight) != label_count:
        raise ModelUnreadableError(f"its head has {len(head[-1].weight)} labels, but lorasite.json names {label_count}")
    return ServedAdapter(join_pairs(pairs, base), head)


def load_updates(folder: Path, base: AdaptedBase) -> dict[str, ProjectionUpdate]:
    """Load an adapter without a head. Raises ModelUnreadableError if any part of it does not fit."""
    tensors = _read_tensors(folder / WEIGHTS)
    pairs = _take_pairs(folder, tensors, base)
    if tensors:
        raise ModelUnreadableError(f"the base model has no module for {sorted(tensors)[0]}")
    return join_pairs(pairs, base)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU, by their names in the model; each one that is used is taken out."""
    tensors: dict[str, Tensor] = {}
    # Only safetensors is read: a pickle under that name is refused.
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            tensor = file.get_tensor(name).float()
            # A finite sum, which is computed three times as fast, has no other terms.
            if not math.isfinite(tensor.sum()) and not bool(tensor.isfinite().all()):
                raise ModelUnreadableError(f"{name.removeprefix(PREFIX)} has values that are not finite")
            tensors[name.removeprefix(PREFIX)] = tensor
    return tensors


def _take_pairs(folder: Path, tensors: dict[str, Tensor], base: AdaptedBase) -> dict[str, LoraPair]:
    settings = read_settings(folder)
    paths = [name.removesuffix(A) for name in tensors if name.endswith(A)]
    return {path: _take_pair(path, settings, tensors, base) for path in paths}


def _take_pair(path: str, settings: dict[str, Any], tensors: dict[str, Tensor], base: AdaptedBase) -> LoraPair:
    a = tensors.pop(path + A)
    b = tensors.pop(path + B, None)
    shape = base.shapes.get(path)
    rank = a.shape[0]
    if b is None or shape is None or (len(b), a.shape[-1]) != shape or rank != b.shape[-1] or not rank:
        raise ModelUnreadableError(f"its update of {path} does not fit the base model")
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return LoraPair(a, scale * b)


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
    if weight.shape[1:] != base_weight.shape[1:] or len(weight) != len(bias):
        raise ModelUnreadableError(f"its {path} does not fit the base model")
    weight, bias = weight.to(base.device), bias.to(base.device)
    pair = pairs.pop(path, None)
    if pair is not None:
        weight = torch.addmm(weight, pair.b.to(base.device), pair.a.to(base.device))
    return HeadLayer(weight, bias, activation)


def join_pairs(pairs: dict[str, LoraPair], base: AdaptedBase) -> dict[str, ProjectionUpdate]:
    """Return the updates of the base model's projections, moved to its device in one transfer."""
    shapes: dict[str, UpdateShape] = {}
    matrices: list[list[Tensor]] = []
    for projection in base.projections:
        paths = [path for path in projection.columns if path in pairs]
        if paths:
            a = [pairs[path].a for path in paths]
            columns = tuple(projection.columns[path] for path in paths)
            ranks = tuple(len(each) for each in a)
            shapes[projection.name] = UpdateShape(projection.inputs, columns, ranks)
            matrices.append([(torch.cat(a) if len(a) > 1 else a[0]).t(), *(pairs[path].b.t() for path in paths)])
    updates = map(ProjectionUpdate, shapes.values(), _flatten_on_device(matrices, base.device))
    return dict(zip(shapes, updates, strict=True))


def _flatten_on_device(groups: list[list[Tensor]], device: torch.device) -> list[Tensor]:
    """Return the numbers of each group end to end, as views of one buffer on a device. Copies each one once on the CPU."""
    sizes = [sum(tensor.numel() for tensor in group) for group in groups]
    flat = torch.empty(sum(sizes))
    start = 0
    for tensor in (tensor for group in groups for tensor in group):
        end = start + tensor.numel()
        flat[start:end].view(tensor.shape).copy_(tensor)
        start = end
    return list(flat.to(device).split(sizes))
