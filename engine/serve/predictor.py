"""Trained models, ready to answer: adapters over shared base models within a bound on memory, texts in common batches."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.serve.batch import Row
from engine.serve.batching_queue import Queue
from engine.serve.errors import TooLarge, Unreadable
from engine.serve.model_cache import Held, Memory
from engine.serve.tokenizer import Tokenizer, identity

if TYPE_CHECKING:
    import torch

    from engine.models.architectures import EncoderArchitecture
    from engine.serve.batch import Computes, Output

MIB = 2**20
WEIGHTS = "adapter_model.safetensors"
TIMEOUT = 60.0  # seconds after which a caller gives up


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text. probabilities: one per label, in the order of `labels`."""

    label: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    truncated: bool
    features: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions in the order of the texts, and the milliseconds that each part took for all of them."""

    predictions: list[Prediction]
    base_model: str
    tokenize_ms: float
    queue_ms: float
    compute_ms: float

    @property
    def milliseconds(self) -> float:
        return self.tokenize_ms + self.queue_ms + self.compute_ms


@dataclass(frozen=True, slots=True)
class Card:
    """lorasite.json of a final model."""

    base_model: str
    revision: str | None
    labels: tuple[str, ...]
    max_length: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory: who computes, which adapter if that is shared, and how its texts become tokens."""

    card: Card
    tokenizer: Tokenizer
    by: Computes
    adapter: Any


class Predictor:
    """One per process. `memory_mb` bounds the weights in memory; batches take `batch_tokens`; see Queue for `patience`."""

    def __init__(
        self,
        base_models_dir: Path | None = None,
        *,
        device: str = "cpu",
        memory_mb: int = 2048,
        batch_tokens: int = 1024,
        patience: float = 4.0,
    ) -> None:
        self.base_models_dir, self.device = base_models_dir, device
        self.memory = Memory(memory_mb * MIB, patience)
        self.queue = Queue(batch_tokens, patience, all_cores)

    def ask(self, folder: Path, texts: list[str]) -> Answers:
        """What the model of a final_model folder says of each text.

        Unreadable where it can't be loaded, Busy where it can't be done soon.
        """
        with self._loaded(folder) as model:
            started = time.perf_counter()
            encoded = model.tokenizer.encode(texts, model.card.max_length)
            tokenized = time.perf_counter()
            ticket = self.queue.compute(model.by, [Row(ids, model.adapter) for ids, _cut in encoded], TIMEOUT)
        cuts = [cut for _ids, cut in encoded]
        return Answers(
            [_prediction(output, model.card, cut) for output, cut in zip(ticket.outputs, cuts, strict=True)],
            model.card.base_model,
            tokenize_ms=1000 * (tokenized - started),
            queue_ms=1000 * (ticket.started_at - ticket.asked_at),
            compute_ms=1000 * (ticket.ended_at - ticket.started_at),
        )

    def base_model(self, folder: Path) -> str:
        """Load the model where it is not in memory, and tell its base model's name."""
        with self._loaded(folder) as model:
            return model.card.base_model

    def state(self) -> dict[str, Any]:
        """What is in memory and what waits, for people and monitoring."""
        models = [value for value in self.memory.values() if isinstance(value, Loaded)]
        return {
            "models": len(models),
            "base_models": sorted({model.card.base_model for model in models}),
            "memory_mb": round(self.memory.used / MIB),
            "memory_limit_mb": round(self.memory.limit / MIB),
            "waiting_tokens": self.queue.waiting_tokens,
            "tokens_per_second": round(self.queue.speed),
        }

    @contextmanager
    def _loaded(self, folder: Path) -> Iterator[Loaded]:
        """The model, in memory at least until the block is left."""
        held = self._take(folder)
        try:
            yield held.value
        finally:
            self.memory.give(held)

    def _take(self, folder: Path) -> Held:
        from safetensors import SafetensorError

        from engine.errors import EngineError

        try:
            key = folder, file_state(folder / WEIGHTS)
            if known := self.memory.known(key):
                return known
            with one_core():
                return self.memory.take(key, *self._plan(folder))
        except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, SafetensorError, EngineError) as e:
            reason = (str(e) or type(e).__name__).splitlines()[0]
            raise Unreadable(reason.replace(f"{folder}/", "")) from e

    def _plan(self, folder: Path) -> tuple[int, Callable[[Held], Loaded]]:
        """The bytes that the model takes beside what it shares, and how it is loaded; reads no weights."""
        from engine.models.architectures import find_architecture
        from engine.models.base_models import resolve
        from engine.serve.adapter import is_plain
        from engine.serve.shared_base import memory_of

        card = read_card(folder)
        base = resolve(card.base_model, self.base_models_dir, card.revision)
        architecture = find_architecture(json.loads((base / "config.json").read_text(encoding="utf-8")))
        shared = architecture is not None and is_plain(folder, architecture)
        own, whole = memory_of(folder), memory_of(folder) + memory_of(base) + identity(folder)[1]
        if whole > self.memory.limit:
            needs, limit = math.ceil(whole / MIB), self.memory.limit // MIB
            raise TooLarge(f"it needs {needs} MiB, and models may take {limit} MiB (SERVE_MEMORY_MB)")
        if architecture is None or not shared:
            return own + memory_of(base), lambda held: self._load_merged(held, folder, card, base)
        return own, lambda held: self._load_shared(held, folder, card, base, architecture)

    def _load_shared(
        self, held: Held, folder: Path, card: Card, base: Path, architecture: EncoderArchitecture
    ) -> Loaded:
        from engine.serve.adapter import load
        from engine.serve.shared_base import Base, memory_of

        key = base, *(file_state(path) for path in sorted(base.glob("*.safetensors")))
        shared = self.memory.take(key, memory_of(base), lambda _: Base(base, architecture, chosen_device(self.device)))
        held.needs.append(shared)
        adapter = load(folder, shared.value, len(card.labels))
        return Loaded(card, self._tokenizer(held, folder), shared.value, adapter)

    def _load_merged(self, held: Held, folder: Path, card: Card, base: Path) -> Loaded:
        from engine.serve.merged import Merged

        merged = Merged(folder, base, len(card.labels), chosen_device(self.device))
        return Loaded(card, self._tokenizer(held, folder), merged, None)

    def _tokenizer(self, held: Held, folder: Path) -> Tokenizer:
        """Most adapters of a base model have the same one, which takes more memory than they do."""
        key, size = identity(folder)
        found = self.memory.take(key, size, lambda _: Tokenizer(folder))
        held.needs.append(found)
        return found.value


def read_card(folder: Path) -> Card:
    found = json.loads((folder / "lorasite.json").read_text(encoding="utf-8"))
    return Card(found["base_model"], found.get("revision"), tuple(found["labels"]), found["max_length"])


def file_state(path: Path) -> tuple[int, int]:
    """Differs once the file was written anew, even by a copy that keeps the time."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unreadable(f"{path.name} is not there") from error
    return found.st_mtime_ns, found.st_ino


def chosen_device(name: str) -> torch.device:
    import torch

    _quiet()
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def all_cores() -> None:
    """For the thread that computes."""
    import torch

    from engine.devices import usable_cores

    torch.set_num_threads(usable_cores())


@contextmanager
def one_core() -> Iterator[None]:
    """For a thread that loads. OpenMP keeps helpers for every thread that ever computed in parallel, and once there are more
    of them than cores, none waits awake for the next product any more: a text then takes 16 ms instead of 9 (measured)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet() -> None:
    """The adapter brings the head that the base model lacks, so transformers' warning about it would only alarm."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)


def _prediction(output: Output, card: Card, cut: bool) -> Prediction:
    shares = tuple(output.logits.float().softmax(-1).tolist())
    return Prediction(max(range(len(shares)), key=shares.__getitem__), card.labels, shares, cut, output.features)
