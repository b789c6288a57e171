"""How one kind of answer of OpenAI's API is written: whole and piece by piece, with the log-probabilities of its tokens."""

import uuid
from collections.abc import Sequence
from typing import Any

from engine.serve.text_stream import ToolCall
from engine.serve.token_logprobs import TokenLogprob


class Chat:
    """An answer of /v1/chat/completions."""

    prefix = "chatcmpl"  # of ids
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def message(self, text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
        """Return the whole answer as a part of its choice. calls: of tools."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": [call_entry(call) for call in calls]}
        return {"message": message}

    def delta(self, text: str, is_first: bool, calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
        """Return a piece of the answer as a part of its choice. calls: of tools, all of which come in one piece."""
        delta: dict[str, Any] = {"role": "assistant"} if is_first else {}
        delta |= {"content": text} if text or (is_first and not calls) else {}
        if calls:
            delta["tool_calls"] = [{"index": index} | call_entry(call) for index, call in enumerate(calls)]
        return {"delta": delta}

    def logprobs(self, tokens: Sequence[TokenLogprob], start: int) -> dict[str, Any]:
        """Return the log-probabilities of tokens. start: characters of the answer before them."""
        content = [
            token_entry(token.token, token.logprob) | {"top_logprobs": [token_entry(*other) for other in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class Completion:
    """An answer of /v1/completions; the methods are those of Chat."""

    prefix = "cmpl"
    whole = chunk = "text_completion"

    def message(self, text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
        return {"text": text}

    def delta(self, text: str, is_first: bool, calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokens: Sequence[TokenLogprob], start: int) -> dict[str, Any]:
        texts = [read(token.token) for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{read(other): logprob for other, logprob in token.top} for token in tokens],
            "text_offset": [start + sum(map(len, texts[:index])) for index in range(len(texts))],
        }


Shape = Chat | Completion
CHAT = Chat()
COMPLETION = Completion()


def call_entry(call: ToolCall) -> dict[str, Any]:
    """Return a call of a tool, with an id by which its result is sent back."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def token_entry(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": read(token), "logprob": logprob, "bytes": list(token)}


def read(token: bytes) -> str:
    """Return a token as text; the parts of a character that is written in several tokens have no text of their own."""
    return token.decode("utf-8", errors="replace")
