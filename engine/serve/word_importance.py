"""Measure which words a prediction depends on: each is left out once, and the change of the probability is its weight."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from engine.serve.answers import Prediction

CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# A Chinese, Japanese or Korean character is a word of its own; elsewhere a word is letters, digits and what joins them.
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’_-]\w+)*")
MOST_WORDS = 64
MOST_SECONDS = 3.0  # a person waits for the answer
BATCH = 8  # words that are left out, each in a text of its own, before time is checked


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of the text and what it added to the label's probability, -1 to 1; None if it was not left out."""

    text: str
    weight: float | None

    @property
    def heat(self) -> int:
        """The strength of its colour, 0 to 9."""
        return min(9, round(abs(self.weight or 0) * 20))


def measure_word_importance(
    predict: Callable[[list[str]], list[Prediction]], text: str, label: int, seconds: float = MOST_SECONDS
) -> list[Word]:
    """Return the whole text in pieces, in order; the first MOST_WORDS words have weights, or as many as `seconds` allow."""
    deadline = time.monotonic() + seconds
    spans = [match.span() for match in WORD.finditer(text)]
    with_all_words = predict([text])[0].probabilities[label]
    weights: dict[tuple[int, int], float] = {}
    for first in range(0, min(len(spans), MOST_WORDS), BATCH):
        batch = spans[first : first + BATCH]
        predictions = predict([text[:start] + text[end:] or " " for start, end in batch])
        for span, prediction in zip(batch, predictions, strict=True):
            weights[span] = with_all_words - prediction.probabilities[label]
        if time.monotonic() > deadline:
            break
    edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
    return [Word(text[start:end], weights.get((start, end))) for start, end in pairwise(edges)]
