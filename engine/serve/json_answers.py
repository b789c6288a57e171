"""Hold answers to JSON: in each step, the tokens after which the text can still become a JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


class JsonGrammar:
    """The grammar of a JSON object over the tokens of one tokenizer. tokenizer: of transformers."""

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], vocabulary: int) -> None:
        self.tokenizer = tokenizer
        self.end_ids = list(end_ids)
        self.vocabulary = vocabulary

    @cached_property
    def _parts(self) -> tuple[Any, str]:
        from llguidance import LLMatcher  # deferred: most answers are free text
        from llguidance.hf import from_tokenizer

        tokens = from_tokenizer(self.tokenizer, n_vocab=self.vocabulary, eos_token=self.end_ids)
        return tokens, LLMatcher.grammar_from_json_schema({"type": "object"})

    def start(self) -> JsonState:
        """Return the state of an answer that has not begun."""
        from llguidance import LLMatcher

        return JsonState(LLMatcher(*self._parts), self.vocabulary)


class JsonState:
    """How far one answer has come. After the object's last brace, only tokens that end the answer are allowed."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self.matcher = matcher
        self.vocabulary = vocabulary

    def allowed(self) -> Tensor:
        """Return which tokens may come next: (vocabulary,) bool."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self.vocabulary].astype(bool))

    def add(self, token: int) -> None:
        """Take over the token that was chosen among the allowed ones."""
        self.matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Return whether the object is closed."""
        return bool(self.matcher.is_stopped())
