"""An adapter over a shared base model: low-rank pairs by the path of the layer that they add to, and a head.

y = x Wᵀ + b + (x a) b'      a = Aᵀ: (in, r)      b' = s Bᵀ: (r, out)      (LoRA, arXiv 2106.09685)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from engine.models.architectures import EncoderArchitecture
from engine.serve.batch import Output
from engine.serve.errors import Unreadable

if TYPE_CHECKING:
    from engine.serve.shared_base import Base

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
MOST_TENSORS, MOST_HEADER = 10_000, 10 * 2**20  # bytes
PLAIN_STARTS = (True, "gaussian", None)  # others change the base model's own weights
# Settings of PEFT that leave an adapter two matrices beside a frozen weight. Any other one that is set may mean more.
HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer's update. a: (in, rank); b: (rank, out), scaled."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class Dense:
    """One layer of a head. weight: (out, in)."""

    weight: Tensor
    bias: Tensor
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        y = linear(x, self.weight, self.bias)
        return getattr(torch, self.activation)(y) if self.activation else y


class Adapter:
    """What a run has learnt, over a Base."""

    def __init__(self, pairs: dict[str, Pair], head: list[Dense]) -> None:
        self.pairs, self.head = pairs, head

    def head_outputs(self, first: Tensor) -> list[Output]:
        """first: (texts, width), the states of the texts' first tokens."""
        for layer in self.head[:-1]:
            first = layer(first)
        return [Output(logits, features) for logits, features in zip(self.head[-1](first), first, strict=True)]


def is_plain(folder: Path, architecture: EncoderArchitecture) -> bool:
    """Whether the adapter is pairs of matrices and a head, and nothing that would touch the shared base model."""
    settings = read_settings(folder)
    plain = settings.get("peft_type") == "LORA" and settings.get("bias", "none") == "none"
    starts_plain = settings.get("init_lora_weights") in PLAIN_STARTS
    more = [name for name, value in settings.items() if value and name not in HARMLESS]
    own = {f"{path}.{kind}" for path, _activation in architecture.head for kind in ("weight", "bias")}
    names = {name.removeprefix(PREFIX) for name in header(folder / WEIGHTS)}
    return plain and starts_plain and not more and all(name in own or name.endswith((A, B)) for name in names)


def header(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, by name; reads no weights."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER:
            raise Unreadable(f"{path.name} is no safetensors file")
        found: dict[str, Any] = json.loads(file.read(length))
    if len(found) > MOST_TENSORS:
        raise Unreadable(f"{path.name} holds {len(found):,} tensors, more than any model needs")
    return {name: entry["shape"] for name, entry in found.items() if name != "__metadata__"}


def read_settings(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise Unreadable(f"{SETTINGS} is no mapping")
    return settings


def load(folder: Path, base: Base, labels: int) -> Adapter:
    """Read, check and scale; Unreadable where something does not fit the base model."""
    settings, tensors = read_settings(folder), _tensors(folder, base.device)
    pairs = _pairs(tensors, settings, base)
    head = [_dense(path, activation, tensors, pairs, base) for path, activation in base.architecture.head]
    if tensors:
        raise Unreadable(f"the base model has no place for {sorted(tensors)[0]}")
    if len(head[-1].weight) != labels:
        raise Unreadable(f"its head tells {len(head[-1].weight)} labels apart, and it names {labels}")
    return Adapter(pairs, head)


def _tensors(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """By their names below the model. Safetensors is read and nothing else: a pickle under that name is refused."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt", device=str(device)) as file:
        found = {name.removeprefix(PREFIX): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  no mapping
    broken = next((name for name, tensor in found.items() if not bool(tensor.isfinite().all())), None)
    if broken:
        raise Unreadable(f"{broken} holds numbers that are not finite")
    return found


def _pairs(tensors: dict[str, Tensor], settings: dict[str, Any], base: Base) -> dict[str, Pair]:
    paths = [name.removesuffix(A) for name in tensors if name.endswith(A)]
    return {path: _pair(path, tensors, settings, base) for path in paths}


def _pair(path: str, tensors: dict[str, Tensor], settings: dict[str, Any], base: Base) -> Pair:
    a, b = tensors.pop(path + A), tensors.pop(path + B, None)
    wanted = base.shapes.get(path)
    if b is None or wanted is None or (len(b), a.shape[-1]) != wanted or a.shape[0] != b.shape[-1]:
        raise Unreadable(f"its update of {path} does not fit the base model")
    rank = a.shape[0]
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return Pair(a.t().contiguous(), (scale * b).t().contiguous())


def _dense(path: str, activation: str, tensors: dict[str, Tensor], pairs: dict[str, Pair], base: Base) -> Dense:
    """A layer of the head: the adapter's own, or the base model's where that has one, with the adapter's update merged."""
    weight, bias = tensors.pop(f"{path}.weight", None), tensors.pop(f"{path}.bias", None)
    if weight is None or bias is None:
        if path in base.new_modules:
            raise Unreadable(f"it brings no {path}, and the base model has none")
        weight, bias = base.head[path]
    if pair := pairs.pop(path, None):
        weight = weight + (pair.a @ pair.b).t()
    if weight.shape[1:] != base.head[path][0].shape[1:] or len(weight) != len(bias):
        raise Unreadable(f"its {path} does not fit the base model")
    return Dense(weight, bias, activation)
