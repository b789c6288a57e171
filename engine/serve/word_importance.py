"""Which words a prediction hangs on: each is left out once, and the change of the probability is its weight."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from engine.serve.predictor import Prediction

# A Chinese, Japanese or Korean character stands for itself; elsewhere a word is letters, digits and what joins them.
PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’_-]\w+)*"
)
LIMIT, SECONDS, BATCH = 64, 3.0, 8  # a long text on a slow machine: a person waits for the answer


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of the text and what it added to the label's probability, -1 to 1; None for what was not left out."""

    text: str
    weight: float | None

    @property
    def heat(self) -> int:
        """0 to 9, for a colour."""
        return min(9, round(abs(self.weight or 0) * 20))


def words_that_mattered(
    predict: Callable[[list[str]], list[Prediction]], text: str, label: int, seconds: float = SECONDS
) -> list[Word]:
    """The whole text in pieces, in order, each with its weight; the first LIMIT words, or what `seconds` allow."""
    until = time.monotonic() + seconds
    places = [match.span() for match in PIECE.finditer(text)]
    whole = predict([text])[0].probabilities[label]
    weights: dict[tuple[int, int], float] = {}
    for first in range(0, min(len(places), LIMIT), BATCH):
        tried = places[first : first + BATCH]
        without = predict([text[:start] + text[end:] or " " for start, end in tried])
        weights |= {span: whole - found.probabilities[label] for span, found in zip(tried, without, strict=True)}
        if time.monotonic() > until:
            break
    return [Word(text[start:end], weights.get((start, end))) for start, end in _cover(places, len(text))]


def _cover(places: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """The places with what lies between them."""
    edges = sorted({0, length, *(edge for place in places for edge in place)})
    return list(pairwise(edges))
