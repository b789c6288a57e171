"""Read what a model's folder says about the model, without reading its weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.weights_hash import hash_base_weights
from engine.serve.errors import ModelUnreadableError
from engine.task_types import HeadKind, TaskType, head_of

# PEFT's names.
WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
# More would be an attack.
MOST_TENSORS = 10_000
MOST_HEADER_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """lorasite.json of a final model. Models of earlier releases lack what has a default here.

    outputs: numbers that the model computes for a text, or for a token. text_pairs: whether it takes two texts at once;
    token_types: whether it tells them apart by token types. temperature, temperatures: what logits are divided by, one for
    all labels or one for each. thresholds: probability from which on a text has a label. confident_from: probability from
    which on answers are called confident, infinite if none is high enough, None if it was not measured. score_mean,
    score_deviation: of the training rows, in which scores are counted. end_of_turn: the token that ends an answer of a language
    model.
    """

    base_model: str
    revision: str | None
    labels: tuple[str, ...]
    max_length: int
    base_model_hash: str | None = None
    task: TaskType = "sequence_classification"
    outputs: int = 0
    text_pairs: bool = False
    token_types: bool = False
    temperature: float = 1.0
    temperatures: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    confident_from: float | None = None
    score_mean: float = 0.0
    score_deviation: float = 1.0
    end_of_turn: str | None = None

    @property
    def head(self) -> HeadKind:
        """Return the kind of the model's head: outputs for each text, for each of its tokens, or the next token."""
        return head_of(self.task)


def read_info(folder: Path) -> ModelInfo:
    """Read lorasite.json. Raises OSError, ValueError or KeyError if it is missing or incomplete."""
    return parse_info(json.loads((folder / "lorasite.json").read_text(encoding="utf-8")))


def parse_info(content: dict[str, Any]) -> ModelInfo:
    """Return what the content of lorasite.json says. Raises KeyError if it is incomplete."""
    labels = tuple(content["labels"])
    calibration = content.get("answers", {})
    confident_from = calibration.get("confident_from")
    if confident_from is None and "confident_from" in calibration:
        confident_from = math.inf  # calibrated, and no probability was high enough
    return ModelInfo(
        base_model=content["base_model"],
        revision=content.get("revision"),
        labels=labels,
        max_length=content["max_length"],
        base_model_hash=content.get("base_model_hash"),
        task=content.get("task", "sequence_classification"),
        outputs=len(content.get("id2label") or labels),
        text_pairs=content.get("text_pairs", False),
        token_types=content.get("token_types", False),
        temperature=calibration.get("temperature", 1.0),
        temperatures=tuple(calibration.get("temperatures", ())),
        thresholds=tuple(calibration.get("thresholds", ())),
        confident_from=confident_from,
        score_mean=calibration.get("score_mean", 0.0),
        score_deviation=calibration.get("score_deviation", 1.0),
        end_of_turn=content.get("end_of_turn"),
    )


def require_base_weights(info: ModelInfo, base: Path) -> None:
    """Raise ModelUnreadableError if the folder `base` holds other weights than the model was trained on."""
    if info.base_model_hash is None:
        return
    actual = hash_base_weights(base, info.base_model)
    if actual != info.base_model_hash:
        name = f"{info.base_model} at {info.revision}" if info.revision else info.base_model
        raise ModelUnreadableError(
            f"it was trained on other weights of the base model {name} (sha256 {info.base_model_hash[:12]}) than those "
            f"that are here now ({actual[:12]}); put the former weights back, or train it again"
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """Return PEFT's settings of the adapter. Raises ModelUnreadableError, OSError or ValueError."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ModelUnreadableError(f"{SETTINGS} is not a JSON object")
    return settings


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor of a safetensors file by its name, from the file's header alone.

    Raises ModelUnreadableError if the header is too large or names too many tensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise ModelUnreadableError(f"{path.name} is not a safetensors file")
        header: dict[str, Any] = json.loads(file.read(length))
    if len(header) > MOST_TENSORS:
        raise ModelUnreadableError(f"{path.name} has {len(header):,} tensors, more than any model needs")
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def fp32_bytes(folder: Path) -> int:
    """Return the memory that the weights in a folder's safetensors files take as fp32."""
    shapes = [shape for path in folder.glob("*.safetensors") for shape in tensor_shapes(path).values()]
    return 4 * sum(math.prod(shape) for shape in shapes)


def file_state(path: Path) -> tuple[int, int]:
    """Return a value that changes when the file is replaced, even by a copy that keeps the modification time."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelUnreadableError(f"{path.name} is not there") from error
    return status.st_mtime_ns, status.st_ino
