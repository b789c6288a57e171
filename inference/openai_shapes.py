"""How one kind of answer of OpenAI's API is written: whole and piece by piece, with the log-probabilities of its tokens."""

from collections.abc import Sequence
from typing import Any

from engine.serve.token_logprobs import TokenLogprob


class Chat:
    """An answer of /v1/chat/completions."""

    prefix = "chatcmpl"  # of ids
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def message(self, text: str) -> dict[str, Any]:
        """Return the whole answer as a part of its choice."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def delta(self, text: str, is_first: bool) -> dict[str, Any]:
        """Return a piece of the answer as a part of its choice."""
        role = {"role": "assistant"} if is_first else {}
        return {"delta": role | ({"content": text} if text or is_first else {})}

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

    def message(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def delta(self, text: str, is_first: bool) -> dict[str, Any]:
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


def token_entry(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": read(token), "logprob": logprob, "bytes": list(token)}


def read(token: bytes) -> str:
    """Return a token as text; the parts of a character that is written in several tokens have no text of their own."""
    return token.decode("utf-8", errors="replace")
