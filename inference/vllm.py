"""Answers by a vLLM server (VLLM_URL): our adapters are loaded there at run time, and requests go through our permissions to it.

https://docs.vllm.ai, "Dynamically serving LoRA Adapters". The server reads the adapters' files itself, so it has to see the
folders of models and results under the same paths.
"""

import hashlib
import json
import logging
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import closing
from http.client import HTTPException
from threading import Lock
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from engine.models.plain_templates import USUAL, plain_template, read_special_tokens
from engine.serve.generator import FinishReason, Piece, Usage
from engine.serve.model_files import WEIGHTS, file_state
from engine.serve.token_logprobs import TokenLogprob
from engine.serve.tool_calls import ToolCall
from web.errors import ConflictError, InvalidError, LorasiteError, NotFoundError

from .completion_requests import ChatRequest, CompletionOptions
from .language_models import LanguageModel
from .services import OverloadedError

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds for the next part of an answer
LIST_TIMEOUT = 5.0
LISTED_FOR = 30.0  # seconds that the list of base models counts
RETRY_SECONDS = 5.0
MOST_ADAPTERS = 64  # loaded by us at the same time; the one that was not used longest is unloaded
OURS = {
    "model", "stream", "stream_options", "max_completion_tokens", "max_tokens", "user", "store", "metadata", "chat_template",
}  # fmt: skip


class ServerUnavailableError(LorasiteError):
    code = "unavailable"
    status = 503


class Adapters:
    """What this process knows of the server: the base models that it serves, and the adapters that we have loaded there."""

    def __init__(self) -> None:
        self.loaded: OrderedDict[str, None] = OrderedDict()
        self.base_models: set[str] = set()
        self.listed_at = -LISTED_FOR
        self._lock = Lock()

    def serves(self, base_model: str) -> bool:
        """Return whether the server has this base model; False while it does not answer."""
        with self._lock:
            if time.monotonic() - self.listed_at > LISTED_FOR:
                try:
                    entries = json.load(call("/v1/models", timeout=LIST_TIMEOUT))["data"]
                    self.base_models = {entry["id"] for entry in entries if not entry.get("parent")}
                except (LorasiteError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    log.warning("The vLLM server does not list its models (%s).", error)
                    self.base_models = set()
                self.listed_at = time.monotonic()
            return base_model in self.base_models

    def require(self, model: LanguageModel) -> str:
        """Return the name of a model at the server, where its adapter is loaded if that is needed."""
        if model.source is None:
            return model.base_model
        name = adapter_name(model)
        with self._lock:
            if name not in self.loaded:
                load(name, model)
            self.loaded[name] = None
            self.loaded.move_to_end(name)
            while len(self.loaded) > MOST_ADAPTERS:
                oldest, _none = self.loaded.popitem(last=False)
                try:
                    call("/v1/unload_lora_adapter", {"lora_name": oldest}).close()
                except LorasiteError as error:
                    log.warning("The vLLM server did not unload an adapter (%s).", error)
        return name

    def forget(self, name: str) -> None:
        """Load an adapter again at its next use: the server has been restarted."""
        with self._lock:
            self.loaded.pop(name, None)


adapters = Adapters()


def adapter_name(model: LanguageModel) -> str:
    """Return a name that no other adapter has, not even one that replaces these files later."""
    state = (str(model.folder), file_state(model.folder / WEIGHTS))
    return f"lorasite-{hashlib.sha256(repr(state).encode()).hexdigest()[:24]}"


def load(name: str, model: LanguageModel) -> None:
    """Load an adapter at the server. One that is there already has the same files, so it is used."""
    try:
        call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(model.folder)}).close()
    except InvalidError as error:
        listed = json.load(call("/v1/models", timeout=LIST_TIMEOUT))["data"]
        if name not in {entry["id"] for entry in listed}:
            message = _("The vLLM server can't load the model %(name)s: %(reason)s")
            raise ConflictError(message % {"name": model.name, "reason": error.message}, field="model") from None


def generate(model: LanguageModel, options: CompletionOptions) -> Generator[Piece, None, None]:
    """Yield the pieces of an answer that the server writes. Closing it closes the connection, and so ends the answer."""
    with closing(open_stream(model, options)) as response:
        yield from read_pieces(response)


def open_stream(model: LanguageModel, options: CompletionOptions) -> Any:
    """Return the server's stream. If it has forgotten the adapter, that is loaded again, once."""
    path = "/v1/chat/completions" if isinstance(options, ChatRequest) else "/v1/completions"
    body = options.model_dump(exclude_none=True, exclude=OURS, by_alias=True) | {
        "max_tokens": options.answer_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.plain_template != USUAL:
        special_tokens, _end = read_special_tokens(model.folder)
        body["chat_template"] = plain_template(options.plain_template, special_tokens)
    name = adapters.require(model)
    try:
        return call(path, body | {"model": name})
    except NotFoundError:
        adapters.forget(name)
        return call(path, body | {"model": adapters.require(model)})


def read_pieces(lines: Iterator[bytes]) -> Iterator[Piece]:
    """Yield the pieces of a stream of events; the last one has the reason why the answer ended, and the usage."""
    reason, usage = None, None
    calls: dict[int, list[str]] = {}  # name and arguments of each call of a tool, which come in parts
    try:
        for line in lines:
            content = line.removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or content == b"[DONE]":
                continue
            chunk = json.loads(content)
            if "error" in chunk:
                raise ConflictError(_("The vLLM server stopped the answer: %s") % reason_of(chunk), field="model")
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                reason = choice.get("finish_reason") or reason
                for part in (choice.get("delta") or {}).get("tool_calls") or ():
                    call = calls.setdefault(part["index"], ["", ""])
                    call[0] += part["function"].get("name") or ""
                    call[1] += part["function"].get("arguments") or ""
                text = choice.get("text", (choice.get("delta") or {}).get("content")) or ""
                logprobs = read_logprobs(choice.get("logprobs") or {})
                if text or logprobs:
                    yield Piece(text, 1, logprobs=logprobs)
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise unavailable() from error
    ended: FinishReason = "length" if reason == "length" else "tool_calls" if calls else "stop"
    counts = usage or {}
    cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    counted = Usage(counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0), cached)
    yield Piece("", 0, ended, counted, calls=tuple(ToolCall(*call) for call in calls.values()))


def read_logprobs(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of a choice, in the form of chats or in that of completions."""
    if "tokens" in logprobs:
        columns = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
        return tuple(
            TokenLogprob(
                token.encode(), logprob, tuple((other.encode(), value) for other, value in (top or {}).items())
            )
            for token, logprob, top in columns
        )
    return tuple(
        TokenLogprob(
            token_bytes(entry),
            entry["logprob"],
            tuple((token_bytes(top), top["logprob"]) for top in entry["top_logprobs"]),
        )
        for entry in logprobs.get("content") or ()
    )


def token_bytes(entry: dict[str, Any]) -> bytes:
    return bytes(entry["bytes"]) if entry.get("bytes") else str(entry["token"]).encode()


def call(path: str, body: dict[str, Any] | None = None, timeout: float = TIMEOUT) -> Any:
    """Return the server's response, opened; what it refuses as the error that the caller gets."""
    headers = {"Content-Type": "application/json"}
    if settings.VLLM_API_KEY:
        headers["Authorization"] = f"Bearer {settings.VLLM_API_KEY}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(settings.VLLM_URL + path, data, headers)  # noqa: S310  env.py allows http and https
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        raise refusal(error) from None
    except (OSError, HTTPException) as error:
        raise unavailable() from error


def refusal(error: urllib.error.HTTPError) -> LorasiteError:
    """Return the error that a status of the server means for our caller."""
    try:
        reason = reason_of(json.loads(error.read(10_000)))
    except (OSError, HTTPException, ValueError):
        reason = str(error.reason)
    if error.code in (429, 503):
        return OverloadedError(wait=RETRY_SECONDS)
    if error.code == 404:
        return NotFoundError(reason, field="model")
    if error.code in (400, 422):
        return InvalidError(reason)
    return unavailable()


def reason_of(body: Any) -> str:
    """Return the message of an error of the server, whose releases have it in different places."""
    content = body.get("error", body) if isinstance(body, dict) else body
    return str(content.get("message", content) if isinstance(content, dict) else content)[:500]


def unavailable() -> ServerUnavailableError:
    return ServerUnavailableError(
        _("The vLLM server can't be reached. Try again in a moment, or tell an administrator.")
    )
