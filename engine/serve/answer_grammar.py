"""Hold answers to a grammar: in each step, the tokens after which the text can still become what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.sentences import Sentence, gettext_noop
from engine.serve.errors import PredictionFailedError


@dataclass(eq=False)
class AnswerGrammar:
    """Grammars over the tokens of one tokenizer. tokenizer: of transformers."""

    tokenizer: Any
    end_ids: Sequence[int]
    vocabulary: int

    @cached_property
    def _tokens(self) -> Any:
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self.tokenizer, n_vocab=self.vocabulary, eos_token=list(self.end_ids))

    def start(self, grammar: str) -> GrammarState:
        """Return the state of an answer that has not begun."""
        from llguidance import LLMatcher

        return GrammarState(LLMatcher(self._tokens, grammar), self.vocabulary)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""
        return bytes(self._tokens.decode_bytes([token]))


@dataclass(eq=False)
class GrammarState:
    """How far one answer has come. After its end, only tokens that end the answer are allowed."""

    matcher: Any
    vocabulary: int

    def allowed(self) -> Tensor:
        """Return which tokens may come next: (vocabulary,) bool. Raises PredictionFailedError where the grammar is too much."""
        if self.matcher.is_error():
            message = gettext_noop("its answer can't be held to what was asked for ({reason})")
            raise PredictionFailedError(Sentence(message, reason=self.matcher.get_error()[:200]))
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self.vocabulary].astype(bool))

    def add(self, token: int) -> None:
        """Take over the token that was chosen among the allowed ones."""
        self.matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Return whether the text is whole, so that nothing can follow."""
        return bool(self.matcher.is_stopped())
