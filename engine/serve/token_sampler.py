"""Choose the next token of an answer from the model's logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.sentences import Sentence, gettext_noop
from engine.serve.errors import PredictionFailedError

MOST_LIKELY = 256  # tokens that nearly always hold all of top_p, so that the vocabulary need not be sorted


class TokenSampler:
    """Draws the tokens of one answer. Its random numbers are its own: other answers change nothing in them.

    temperature: 0 takes the likeliest token. top_p: the share of probability from which tokens are drawn, likeliest first.
    """

    def __init__(self, temperature: float, top_p: float, seed: int | None) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self.random = np.random.default_rng(seed)

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> int:
        """Return a token id. logits: (vocabulary,) fp32; allowed: (vocabulary,) bool, None for all tokens.

        Raises PredictionFailedError if a logit is not finite.
        """
        if not bool(logits.isfinite().all()):
            raise PredictionFailedError(
                Sentence(
                    gettext_noop(
                        "its output is not finite, because weights of its base model or adapter are not; train it again, over "
                        "another base model"
                    )
                )
            )
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        if self.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits / self.temperature).softmax(dim=-1)
        draw = float(self.random.random())
        if self.top_p >= 1:
            return _find(probabilities.double().cumsum(dim=0), draw)
        # At least the tokens that hold top_p together, likeliest first. A few are found sooner than all are sorted.
        likeliest, tokens = probabilities.topk(min(MOST_LIKELY, len(probabilities)))
        if float(likeliest.sum()) < self.top_p:
            likeliest, tokens = probabilities.sort(descending=True)
        sums = likeliest.double().cumsum(dim=0)
        count = int(torch.searchsorted(sums, self.top_p)) + 1
        return int(tokens[_find(sums[:count], draw)])


def _find(sums: Tensor, draw: float) -> int:
    """Return the index that a draw from 0 to 1 falls on. sums: cumulative probabilities, (tokens,)."""
    return min(int(torch.searchsorted(sums, draw * sums[-1].item(), right=True)), len(sums) - 1)
