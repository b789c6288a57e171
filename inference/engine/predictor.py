"""Trained adapters over base models, each ready to answer: merged once, kept by how recently they were asked."""

from __future__ import annotations

import json
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

MICRO_BATCH = 32


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text. probabilities: one per label, in the order of `labels`."""

    label: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    truncated: bool


class Unreadable(Exception):
    """The folder holds no model that can be loaded; the message says why, and no path of this machine."""


@dataclass(slots=True)
class Loaded:
    """A model in memory. It answers as it was when it was loaded, whatever becomes of its files."""

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    base_model: str
    max_length: int

    def predict(self, texts: list[str]) -> tuple[list[Prediction], float]:
        """Predictions in the order of `texts`, and the milliseconds that tokenising and computing took."""
        started = time.perf_counter()
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, Prediction] = {}
        for start in range(0, len(texts), MICRO_BATCH):
            rows = by_length[start : start + MICRO_BATCH]
            found.update(zip(rows, forward(self, [texts[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(texts))], (time.perf_counter() - started) * 1000


class Predictor:
    """Holds at most `keep` models; thread-safe."""

    def __init__(self, base_models_dir: Path | None = None, keep: int = 4) -> None:
        self.base_models_dir, self.keep = base_models_dir, keep
        self._models: OrderedDict[Path, tuple[Any, Loaded]] = OrderedDict()
        self._lock = Lock()

    def get(self, folder: Path) -> Loaded:
        """The model of a final_model folder, loaded on first use and again when its file is another one."""
        with self._lock:
            state = _state(folder)
            known = self._models.pop(folder, None)  # gone before another is loaded, so that memory holds one of them
            loaded = known[1] if known and known[0] == state else load(folder, self.base_models_dir)
            self._models[folder] = state, loaded
            while len(self._models) > self.keep:
                self._models.popitem(last=False)
            return loaded


def _state(folder: Path) -> tuple[int, int]:
    """Differs once the adapter was written anew, even by a copy that keeps the time."""
    try:
        found = (folder / "adapter_model.safetensors").stat()
    except OSError as error:
        raise Unreadable("adapter_model.safetensors is not there") from error
    return found.st_mtime_ns, found.st_ino


def load(folder: Path, base_models_dir: Path | None) -> Loaded:
    """The model of a final_model folder; Unreadable with the reason where it can't be loaded."""
    from safetensors import SafetensorError

    from training.engine.errors import EngineError

    try:
        return _load(folder, base_models_dir)
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, SafetensorError, EngineError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Unreadable(reason.replace(f"{folder}/", "")) from error


def _load(folder: Path, base_models_dir: Path | None) -> Loaded:
    """Base model plus adapter from safetensors, merged into one; the answers are those of plain PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from training.engine.base_models import resolve

    _quiet()
    card = json.loads((folder / "lorasite.json").read_text(encoding="utf-8"))
    base = AutoModelForSequenceClassification.from_pretrained(
        resolve(card["base_model"], base_models_dir),
        num_labels=len(card["labels"]),
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,
    )
    model = PeftModel.from_pretrained(base, str(folder), use_safetensors=True).merge_and_unload().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return Loaded(model, tokenizer, tuple(card["labels"]), card["base_model"], card["max_length"])


def _quiet() -> None:
    """The adapter brings the head that the base model lacks, so transformers' warning about it would only alarm."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)


def forward(loaded: Loaded, texts: list[str]) -> list[Prediction]:
    """One padded batch. logits: (texts, labels)."""
    import torch

    limit = loaded.max_length
    lengths = [len(ids) for ids in loaded.tokenizer(texts, truncation=True, max_length=limit + 1)["input_ids"]]
    batch = loaded.tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities = loaded.model(**batch).logits.float().softmax(-1).tolist()
    return [
        Prediction(max(range(len(row)), key=row.__getitem__), loaded.labels, tuple(row), length > limit)
        for row, length in zip(probabilities, lengths, strict=True)
    ]
