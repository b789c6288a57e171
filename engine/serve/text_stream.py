"""Turn the tokens of an answer into text that can be shown at once: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. arguments: as JSON, as OpenAI's API has them."""

    name: str
    arguments: str


class TextStream:
    """The text of one answer. tokenizer: of the tokenizers library. stop: strings that end the answer and are left out."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream  # deferred like all of transformers

        self.tokenizer = tokenizer
        self.stop = [text for text in stop if text]
        self.stopped = False
        self.calls: tuple[ToolCall, ...] = ()  # of tools; known once the text has ended
        self._new_decoder: Callable[[], Any] = partial(DecodeStream, skip_special_tokens=True)
        self._decoder = self._new_decoder()
        self._held = ""  # may turn out to be the beginning of a stop string

    def add(self, token: int) -> str:
        """Return the text that can be shown after one more token. Sets `stopped` if a stop string is complete."""
        try:
            self._held += self._decoder.step(self.tokenizer, token) or ""
        except Exception:  # the library gives up where bytes that make no character change what it has shown of them
            self._decoder = self._new_decoder()
            self._held += self._decoder.step(self.tokenizer, token) or ""
        places = [place for text in self.stop if (place := self._held.find(text)) >= 0]
        if places:
            self.stopped = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        held_back = max((overlap(self._held, text) for text in self.stop), default=0)
        end = len(self._held) - held_back
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def end(self) -> str:
        """Return what was held back, once no token follows. Half of a character is dropped."""
        shown, self._held = self._held, ""
        return shown


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
