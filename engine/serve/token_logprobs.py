"""How likely the tokens of an answer were to the model, beside those that were likelier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer as its bytes, which may be a part of a character. top: the likeliest tokens at its place, likeliest first."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LogprobReader:
    """Reads log-probabilities from logits. token_bytes: returns the bytes of a token id. top: likeliest tokens that are listed."""

    token_bytes: Callable[[int], bytes]
    top: int

    def read(self, logits: Tensor, token: int) -> TokenLogprob:
        """Return what the model thought of a token that was chosen, before temperature and grammar. logits: (vocabulary,)."""
        logprobs = logits.log_softmax(dim=-1)
        likeliest = logprobs.topk(self.top)
        pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        top = tuple((self.token_bytes(number), value) for number, value in pairs)
        return TokenLogprob(self.token_bytes(token), float(logprobs[token]), top)
