"""Write answers with language models: adapters of many people over shared base models, within a memory limit.

Importing this module imports neither torch nor transformers: a web process may never generate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engine.data.conversations import ROLES, Message, UnusableRowError
from engine.models.base_models import resolve
from engine.models.plain_templates import USUAL
from engine.sentences import Sentence, gettext_noop
from engine.serve.continuous_batching import ContinuousBatching
from engine.serve.errors import ModelUnreadableError, PromptRefusedError, PromptTooLongError, ToolsRefusedError
from engine.serve.generated_answer import AnswerStream, FinishReason, GeneratingAnswer, Piece, Usage
from engine.serve.model_cache import MIB, CacheEntry, ModelCache
from engine.serve.model_files import WEIGHTS, file_state, fp32_bytes, read_info, require_base_weights
from engine.serve.predictor import answer_errors, choose_device, loading_errors, one_core, use_free_cores
from engine.serve.tokenizer import tokenizer_key

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate
    from engine.serve.adapter import SequenceAdapter
    from engine.serve.answer_grammar import AnswerGrammar, GrammarState
    from engine.serve.decoder import SharedDecoder
    from engine.serve.text_stream import TextStream
    from engine.serve.token_logprobs import LogprobReader
    from engine.serve.tool_calls import Tool, ToolFormat

__all__ = ["AnswerStream", "FinishReason", "GenerationRequest", "Generator", "Piece", "Usage"]

PLACES = 16
MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to write.

    folder: a final_model folder, or that of a base model alone. prompt: messages, which the model's chat template joins; a
    text to continue; or token ids. max_tokens: of the answer. temperature: 0 takes the likeliest token each time.
    seed: the same one gives the same answer. stop: strings that end the answer and are left out. schema: JSON schema that the answer
    is held to, as far as max_tokens allows. top_logprobs: how many of the likeliest tokens are told with the log-probability
    of each token; None for neither. tools: that the answer may call, as OpenAI's API has them. required_tool: the name of the one
    that it has to call, "" for any of them, None for none. chat_template: that joins the messages for a model without one of its own.
    """

    folder: Path
    prompt: list[Message] | str | list[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    required_tool: str | None = None
    chat_template: str = USUAL


class LoadedLanguageModel:
    """A language model in memory with its tokenizer, its template and the tokens that end its answers."""

    def __init__(
        self, decoder: SharedDecoder, adapter: SequenceAdapter, template: ChatTemplate, end_ids: frozenset[int]
    ) -> None:
        from engine.serve.answer_grammar import AnswerGrammar  # deferred: imports torch

        self.decoder = decoder
        self.adapter = adapter
        self.template = template
        self.end_ids = end_ids
        self.grammar: AnswerGrammar = AnswerGrammar(template.tokenizer, sorted(end_ids), decoder.vocabulary)
        self._lock = Lock()  # transformers sets options on the tokenizer in each call

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools. Raises ToolsRefusedError if that is not known."""
        from engine.serve.tool_calls import find_format

        with self._lock:
            return find_format(self.template)

    def encode(self, prompt: list[Message] | str | list[int], tools: tuple[Tool, ...] = ()) -> list[int]:
        """Return the token ids of a prompt. Raises PromptRefusedError, ToolsRefusedError."""
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
            text, add_special_tokens = self._render(prompt, tools), False
        elif isinstance(prompt, str):
            text, add_special_tokens = prompt, True
        else:
            return self._checked(prompt)  # type: ignore[arg-type]
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptRefusedError(
                Sentence(gettext_noop("The prompt contains invalid Unicode (an unpaired surrogate)."))
            )
        with self._lock, answer_errors():
            ids: list[int] = self.template.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return self._checked(ids)

    def hold(self, request: GenerationRequest) -> GrammarState | None:
        """Return the grammar that the answer is held to; None for free text."""
        from engine.serve.grammars import schema_grammar

        if request.required_tool is not None:
            return self.grammar.start(self.tool_format.grammar(request.tools, request.required_tool or None))
        return None if request.schema is None else self.grammar.start(schema_grammar(request.schema))

    def open_text(self, request: GenerationRequest) -> TextStream:
        """Return what turns the answer's tokens into text and, where there are tools, into calls of them."""
        from engine.serve.text_stream import TextStream
        from engine.serve.tool_calls import ToolCallStream

        tokenizer = self.template.tokenizer.backend_tokenizer
        if request.tools:
            return ToolCallStream(tokenizer, request.stop, self.tool_format)
        return TextStream(tokenizer, request.stop)

    def read_logprobs(self, request: GenerationRequest) -> LogprobReader | None:
        """Return what reads the log-probabilities of the answer's tokens; None where nobody asks for them."""
        from engine.serve.token_logprobs import LogprobReader

        return None if request.top_logprobs is None else LogprobReader(self.grammar.token_bytes, request.top_logprobs)

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids:
            raise PromptRefusedError(Sentence(gettext_noop("The prompt is empty.")))
        if any(not 0 <= number < self.decoder.vocabulary for number in ids):
            message = gettext_noop("The prompt has token ids outside of 0 to {last:,}.")
            raise PromptRefusedError(Sentence(message, last=self.decoder.vocabulary - 1))
        return ids

    def _render(self, messages: list[Message], tools: tuple[Tool, ...]) -> str:
        """Return messages as the model reads them, up to where its answer begins."""
        if special := self.template.special.search(json.dumps(tools, ensure_ascii=False)):
            in_tool = gettext_noop("A tool contains {token}, which controls this model. Remove it.")
            raise ToolsRefusedError(Sentence(in_tool, token=special[0]))
        for message in messages:
            if message.get("role") not in ROLES.values():
                unknown = gettext_noop("A message has the role {role}, which is unknown.")
                raise PromptRefusedError(Sentence(unknown, role=repr(str(message.get("role"))[:40])))
            written = f"{message.get('content') or ''}{json.dumps(message.get('tool_calls'), ensure_ascii=False)}"
            special = self.template.special.search(written)
            if special is not None:
                controls = gettext_noop("A message contains {token}, which controls this model. Remove it.")
                raise PromptRefusedError(Sentence(controls, token=special[0]))
        try:
            with self._lock:
                return self.template.render(messages, add_generation_prompt=True, tools=tools)
        except UnusableRowError as error:
            refused = gettext_noop("The model's chat template refuses these messages: {reason}")
            raise PromptRefusedError(Sentence(refused, reason=str(error.__cause__)[:200])) from error


class Generator:
    """Loads language models and writes answers with them; one per process.

    cache: of models; give a predictor's to keep both within one limit. cache_mb: what keys and values of a model's sequences
    take in it. patience: seconds that a caller waits for a place.
    """

    def __init__(
        self,
        base_models_dir: Path | None = None,
        *,
        device: str = "cpu",
        cache: ModelCache | None = None,
        memory_mb: int = 2048,
        cache_mb: float = 512,
        patience: float = 10.0,
    ) -> None:
        self.base_models_dir = base_models_dir
        self.device = device
        self.cache_mb = cache_mb
        self.cache = cache or ModelCache(memory_mb * MIB, patience)
        self.batching = ContinuousBatching(PLACES, MOST_WAITING, patience, use_free_cores)

    def generate(self, request: GenerationRequest) -> AnswerStream:
        """Return the answer's pieces as they are written, once the answer has a place. May be called from many threads.

        Raises ModelUnreadableError, ModelTooLargeError, PromptRefusedError, PromptTooLongError, ToolsRefusedError, and BusyError with the
        seconds after which to try again. While pieces are read, PredictionFailedError and BusyError may follow.
        """
        from engine.serve.token_sampler import TokenSampler  # deferred: imports torch

        entry = self._acquire(request.folder, request.chat_template)
        model: LoadedLanguageModel = entry.value
        try:
            text = model.open_text(request)
            ids = model.encode(request.prompt, request.tools)
            room = min(request.max_tokens, model.decoder.longest_sequence - len(ids))
            if room < 1:
                raise PromptTooLongError(len(ids), model.decoder.longest_sequence)
            answer = GeneratingAnswer(
                model.decoder,
                model.adapter,
                ids,
                room,
                model.end_ids,
                TokenSampler(request.temperature, request.top_p, request.seed),
                text,
                model.hold(request),
                on_end=lambda: self.cache.release(entry),
                logprobs=model.read_logprobs(request),
            )
        except BaseException:
            self.cache.release(entry)
            raise
        self.batching.start(answer)
        return AnswerStream(answer)

    def state(self) -> dict[str, int]:
        """Return how many answers are being written and how many wait, for people and monitoring."""
        return self.batching.state()

    def _acquire(self, folder: Path, chat_template: str = USUAL) -> CacheEntry:
        """Return the cache's entry of a model, for one more user. Raises ModelUnreadableError, BusyError."""
        with loading_errors(folder):
            has_adapter = (folder / "lorasite.json").is_file()
            state = file_state(folder / (WEIGHTS if has_adapter else "config.json"))
            key: Hashable = ("generates", folder, state, chat_template)
            entry = self.cache.acquire_if_loaded(key)
            if entry is None:
                with self.cache.loading, one_core():
                    size, load = self._plan_loading(folder, has_adapter, chat_template)
                    entry = self.cache.acquire(key, size, load)
            return entry

    def _plan_loading(
        self, folder: Path, has_adapter: bool, chat_template: str
    ) -> tuple[int, Callable[[CacheEntry], LoadedLanguageModel]]:
        """Return the bytes that a model takes beside what it shares, and what loads it. Loads no weights."""
        from engine.models.text_encoding import load_config  # deferred: import torch
        from engine.serve.adapter_loading import can_share_base
        from engine.serve.key_value_cache import bytes_per_token

        base, name, end_of_turn = folder, folder.name, None
        if has_adapter:
            info = read_info(folder)
            if info.head != "causal":
                raise ModelUnreadableError(
                    Sentence(gettext_noop("it was trained to classify texts, not to write them"))
                )
            base = resolve(info.base_model, self.base_models_dir, info.revision)
            require_base_weights(info, base)
            name, end_of_turn = info.base_model, info.end_of_turn
        token_bytes = bytes_per_token(load_config(base, name))
        source = DecoderSource(base, name, max(1, int(self.cache_mb * MIB) // token_bytes), chat_template)
        own_bytes = (fp32_bytes(folder) if has_adapter else 0) + tokenizer_key(folder)[1]
        shared_bytes = fp32_bytes(base) + source.cache_tokens * token_bytes
        self.cache.require_room(own_bytes + shared_bytes)
        is_merged = has_adapter and not can_share_base(folder, ())
        own_bytes += shared_bytes if is_merged else 0

        def load(entry: CacheEntry) -> LoadedLanguageModel:
            if is_merged:
                decoder, adapter = self._decoder(source, folder), None
            else:
                key = ("decoder", base, *(file_state(path) for path in sorted(base.glob("*.safetensors"))))
                shared = self.cache.acquire(key, shared_bytes, lambda _: self._decoder(source))
                entry.needs.append(shared)
                decoder, adapter = shared.value, folder if has_adapter else None
            return load_language_model(decoder, source, folder, adapter, end_of_turn)

        return own_bytes, load

    def _decoder(self, source: DecoderSource, merged: Path | None = None) -> SharedDecoder:
        from engine.serve.decoder import SharedDecoder  # deferred: imports torch

        return SharedDecoder.load(source.base, source.name, choose_device(self.device), source.cache_tokens, merged)


@dataclass(frozen=True, slots=True)
class DecoderSource:
    """What a decoder is loaded from. cache_tokens: that its cache has room for. chat_template: see GenerationRequest."""

    base: Path
    name: str
    cache_tokens: int
    chat_template: str


def load_language_model(
    decoder: SharedDecoder, source: DecoderSource, folder: Path, adapter: Path | None, end_of_turn: str | None
) -> LoadedLanguageModel:
    """Load the tokenizer in a model's folder and, if it is given, the adapter in another one over its base model."""
    from engine.models.chat_template import ChatTemplate
    from engine.models.text_encoding import load_tokenizer
    from engine.serve.adapter import SequenceAdapter
    from engine.serve.adapter_loading import load_updates  # deferred: imports torch

    tokenizer = load_tokenizer(folder, source.name)
    template = ChatTemplate(tokenizer, source.name, source.chat_template)
    updates = {} if adapter is None else load_updates(adapter, decoder)
    end_ids = find_end_ids(source.base, tokenizer, end_of_turn)
    return LoadedLanguageModel(decoder, SequenceAdapter(updates), template, end_ids)


def find_end_ids(base: Path, tokenizer: Any, end_of_turn: str | None) -> frozenset[int]:
    """Return the tokens that end an answer: those of the tokenizer, of the base model's settings and of the training."""
    ids = {tokenizer.eos_token_id}
    if end_of_turn is not None:
        ids.add(tokenizer.get_vocab().get(end_of_turn))
    for name in ("config.json", "generation_config.json"):
        path = base / name
        saved = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        ids.update(saved if isinstance(saved, list) else [saved])
    return frozenset(number for number in ids if isinstance(number, int))
