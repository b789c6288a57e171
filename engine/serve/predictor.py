"""Predict with trained models: adapters over shared base models within a memory limit, texts of all callers in common batches.

Importing this module imports neither torch nor transformers: a web process may never predict.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.models.base_models import resolve
from engine.sentences import Sentence, gettext_noop
from engine.serve.answers import Answer
from engine.serve.batching_queue import BatchingQueue
from engine.serve.encoded import EncodedTexts, EncodedWindows, encode
from engine.serve.errors import (
    BusyError,
    ModelUnreadableError,
    PredictionFailedError,
    WrongInputError,
)
from engine.serve.model_cache import MIB, CacheEntry, ModelCache
from engine.serve.model_files import WEIGHTS, ModelInfo, file_state, fp32_bytes, read_info, require_base_weights
from engine.serve.tokenizer import ServedTokenizer, tokenizer_key
from engine.waiting_threads import others_need_cores, watch_other_programs

if TYPE_CHECKING:
    import torch

    from engine.models.architectures import EncoderArchitecture
    from engine.serve.adapter import ServedAdapter
    from engine.serve.batch import BatchModel, RowOutput
    from engine.serve.word_importance import Explanation

logger = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds after which a caller gives up


@dataclass(frozen=True, slots=True)
class TimedPredictions:
    """Predictions in the order of the texts, and the milliseconds that each stage took for all of them."""

    predictions: list[Answer]
    base_model: str
    tokenize_ms: float
    queue_ms: float
    compute_ms: float

    @property
    def milliseconds(self) -> float:
        """Return the milliseconds of all stages together."""
        return self.tokenize_ms + self.queue_ms + self.compute_ms


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A final model in memory: what computes it, its adapter unless that is merged, and its tokenizer."""

    info: ModelInfo
    tokenizer: ServedTokenizer
    model: BatchModel
    adapter: ServedAdapter | None

    def encode(self, texts: list[str], text_pairs: list[str] | None) -> EncodedTexts | EncodedWindows:
        """Return the tokens of texts, or of pairs of texts. Raises WrongInputError unless the model takes such."""
        self.require_input(text_pairs)
        return encode(self.tokenizer, self.info, texts, text_pairs)

    def require_input(self, text_pairs: list[str] | None) -> None:
        """Raise WrongInputError unless the model takes pairs of texts, or single texts if `text_pairs` is None."""
        if self.info.text_pairs != (text_pairs is not None):
            raise WrongInputError(wants_pairs=self.info.text_pairs)


class Predictor:
    """Loads final models and predicts with them; one per process.

    memory_mb: limit of all weights in memory. batch_tokens, patience: see BatchingQueue. base: the folder of every
    model's base model, instead of one that is found by its name.
    """

    def __init__(
        self,
        base_models_dir: Path | None = None,
        *,
        device: str = "cpu",
        memory_mb: int = 2048,
        batch_tokens: int = 1024,
        patience: float = 4.0,
        base: Path | None = None,
    ) -> None:
        self.base_models_dir = base_models_dir
        self.base = base
        self.device = device
        self.cache = ModelCache(memory_mb * MIB, patience)
        self.queue = BatchingQueue(batch_tokens, patience, use_free_cores)
        self._explaining = Lock()

    def predict(self, folder: Path, texts: list[str], text_pairs: list[str] | None = None) -> TimedPredictions:
        """Predict each text, or pair of texts, with the model in a final_model folder, and wait for the answer.

        May be called from many threads: their texts are computed in common batches. Raises ModelUnreadableError if the
        model can't be loaded, ModelTooLargeError if it needs more than the memory limit, BusyError if it can't answer soon,
        WrongInputError if it was trained on pairs and gets single texts or the other way round, PredictionFailedError if it
        has no answer to one of the texts.
        """
        with self.loaded(folder) as loaded, answer_errors():
            started = time.perf_counter()
            encoded = loaded.encode(texts, text_pairs)
            tokenized = time.perf_counter()
            request = self.queue.compute(loaded.model, encoded.rows(loaded.adapter), TIMEOUT)
        require_finite(request.outputs)
        return TimedPredictions(
            encoded.answers(request.outputs, loaded.info),
            loaded.info.base_model,
            tokenize_ms=1000 * (tokenized - started),
            queue_ms=1000 * (request.started_at - request.queued_at),
            compute_ms=1000 * (request.ended_at - request.started_at),
        )

    def logits(self, folder: Path, texts: list[str], text_pairs: list[str] | None = None) -> torch.Tensor:
        """Return the logits of texts, computed as one batch by the calling thread. Raises as `predict`.

        (texts, outputs) or, of a model that finds entities, (tokens that count, outputs), text by text.
        """
        with self.loaded(folder) as loaded, answer_errors():
            encoded = loaded.encode(texts, text_pairs)
            outputs = loaded.model.outputs(encoded.rows(loaded.adapter))
        require_finite(outputs)
        return encoded.logits(outputs)

    def explain_by_gradients(
        self, folder: Path, text: str, outputs: Sequence[int], text_pair: str | None = None
    ) -> list[Explanation]:
        """Return what each word of a text, or of a pair of texts, adds to each of some outputs of a model.

        One explanation is computed at a time, by the calling thread. A model that shares its base model is loaded a second
        time for it, within the memory limit. Raises as `predict`.
        """
        from engine.serve.integrated_gradients import explain_by_gradients  # deferred: imports torch

        with self.loaded(folder) as loaded:
            loaded.require_input(None if text_pair is None else [text_pair])
            is_shared = loaded.adapter is not None
        if not self._explaining.acquire(timeout=self.cache.patience):
            raise BusyError("Another explanation is being computed.", self.cache.patience)
        try:
            with self.loaded(folder, merged=is_shared) as loaded, answer_errors(), one_core():
                model: Any = loaded.model
                return explain_by_gradients(model, loaded.tokenizer, loaded.info, text, outputs, text_pair)
        finally:
            self._explaining.release()

    def load_model(self, folder: Path) -> str:
        """Load a model unless it is in memory; return the name of its base model."""
        with self.loaded(folder) as loaded:
            return loaded.info.base_model

    def state(self) -> dict[str, Any]:
        """Return what is in memory and what is waiting, for people and monitoring."""
        models = [value for value in self.cache.values() if isinstance(value, LoadedModel)]
        return {
            "models": len(models),
            "base_models": sorted({model.info.base_model for model in models}),
            "memory_mb": round(self.cache.used / MIB),
            "memory_limit_mb": round(self.cache.limit / MIB),
            "waiting_tokens": self.queue.waiting_tokens,
            "tokens_per_second": round(self.queue.speed),
        }

    @contextmanager
    def loaded(self, folder: Path, merged: bool = False) -> Iterator[LoadedModel]:
        """Give the model, in memory until the block is left. A folder that is broken in any way is ModelUnreadableError.

        merged: give a copy that shares nothing, even if the model could share its base model.
        """
        with loading_errors(folder):
            key: Hashable = (folder, file_state(folder / WEIGHTS), *(["merged"] if merged else []))
            entry = self.cache.acquire_if_loaded(key)
            if entry is None:
                with self.cache.loading, one_core():
                    size, load = self._plan_loading(folder, merged)
                    entry = self.cache.acquire(key, size, load)
        try:
            yield entry.value
        finally:
            self.cache.release(entry)

    def _plan_loading(self, folder: Path, merged: bool) -> tuple[int, Callable[[CacheEntry], LoadedModel]]:
        """Return the bytes that the model takes beside what it shares, and what loads it. Loads no weights."""
        from engine.models.architectures import find_architecture  # deferred: imports torch
        from engine.serve.adapter_loading import can_share_base

        info = read_info(folder)
        base = self.base or resolve(info.base_model, self.base_models_dir, info.revision)
        require_base_weights(info, base)
        own_bytes = fp32_bytes(folder)
        base_bytes = fp32_bytes(base)
        tokenizer = tokenizer_key(folder)
        total_bytes = own_bytes + base_bytes + tokenizer[1]
        self.cache.require_room(total_bytes)
        architecture = find_architecture(json.loads((base / "config.json").read_text(encoding="utf-8")))
        can_share = False
        if architecture is not None and info.head == "sequence":
            can_share = can_share_base(folder, [path for path, _activation in architecture.head])
        if merged or not can_share:
            return own_bytes + base_bytes, lambda entry: self._load(entry, folder, info, base, tokenizer, None)
        return own_bytes, lambda entry: self._load(entry, folder, info, base, tokenizer, architecture)

    def _load(
        self,
        entry: CacheEntry,
        folder: Path,
        info: ModelInfo,
        base: Path,
        tokenizer_key: tuple[str, int],
        shared: EncoderArchitecture | None,
    ) -> LoadedModel:
        """Load an adapter over a base model that may be in memory already, or merge it into one of its own.

        shared: the architecture of a base model that the adapter shares; None to merge.
        """
        from engine.serve.adapter_loading import load_adapter  # deferred: imports torch
        from engine.serve.merged_model import MergedModel
        from engine.serve.shared_base import SharedBaseModel

        device = choose_device(self.device)
        # Most adapters of a base model have the same tokenizer, which takes more memory than they do.
        key, size = tokenizer_key
        tokenizer = self.cache.acquire(key, size, lambda _: ServedTokenizer(folder))
        entry.needs.append(tokenizer)
        model: MergedModel | SharedBaseModel
        adapter = None
        if shared is None:
            model = MergedModel(folder, base, info, tokenizer.value.padding_id, device)
        else:
            base_key = (base, *(file_state(path) for path in sorted(base.glob("*.safetensors"))))
            base_entry = self.cache.acquire(base_key, fp32_bytes(base), lambda _: SharedBaseModel(base, shared, device))
            entry.needs.append(base_entry)
            model = base_entry.value
            adapter = load_adapter(folder, base_entry.value, info.outputs)
        # An earlier release may have trained with a longer text than the model has positions for.
        max_length = min(info.max_length, model.longest_text or info.max_length)
        return LoadedModel(replace(info, max_length=max_length), tokenizer.value, model, adapter)


@contextmanager
def loading_errors(folder: Path) -> Iterator[None]:
    """Turn whatever is raised while a model is loaded into ModelUnreadableError. A folder may be broken in any way."""
    from safetensors import SafetensorError  # deferred until a model is loaded

    try:
        yield
    except (BusyError, ModelUnreadableError):
        raise
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, SafetensorError, EngineError) as e:
        # Callers show the reason to people, who need not know where models lie on this machine.
        reason = (str(e) or type(e).__name__).splitlines()[0].replace(f"{folder}/", "")
        raise ModelUnreadableError(e.message if isinstance(e, EngineError) and e.message == reason else reason) from e


@contextmanager
def answer_errors() -> Iterator[None]:
    """Turn whatever a tokenizer or a model raises while it answers texts into PredictionFailedError."""
    from engine.out_of_memory import is_out_of_memory  # deferred: imports torch

    try:
        yield
    except EngineError:
        raise
    except BaseException as error:
        # Rust code that panics, such as a tokenizer's, raises what is no Exception.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        if is_out_of_memory(error):
            reason = Sentence(
                gettext_noop("there is not enough memory for texts of this length; send fewer or shorter texts")
            )
        else:
            failed = gettext_noop("its computation failed ({error}); try a shorter text, or train it again")
            reason = Sentence(failed, error=type(error).__name__)
        logger.exception("Texts could not be answered")
        raise PredictionFailedError(reason) from error


def require_finite(outputs: list[RowOutput]) -> None:
    """Raise PredictionFailedError if a logit is infinite or NaN: there are no probabilities then."""
    for number, output in enumerate(outputs, start=1):
        if not bool(output.logits.isfinite().all()):
            message = gettext_noop(
                "its output for text {number} is not finite, because weights of its base model or adapter are not; "
                "train it again, over another base model"
            )
            raise PredictionFailedError(Sentence(message, number=number))


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU where there is one."""
    import torch  # deferred: takes a second

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def use_free_cores() -> None:
    """Let the thread that computes use every core, or a single one beside a program that needs them.

    With several, each of the hundred products of a text waits until the other program leaves the last core: a single core is
    ten times as fast then.
    """
    import torch  # deferred: takes a second

    from engine.devices import usable_cores

    watch_other_programs(usable_cores())
    threads = 1 if others_need_cores() else usable_cores()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@contextmanager
def one_core() -> Iterator[None]:
    """Let a thread that loads a model use one core.

    OpenMP keeps helper threads for every thread that ever computed in parallel. Once there are more of them than cores, none
    spins while it waits for the next product, and a text takes 16 ms instead of 9 (measured).
    """
    import torch  # deferred: takes a second

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
