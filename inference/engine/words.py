"""Which words a prediction hangs on: each is left out once, and the change of the probability is its weight."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from .predictor import Prediction

# A Chinese, Japanese or Korean character stands for itself; elsewhere a word is letters, digits and what joins them.
PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’_-]\w+)*"
)
LIMIT = 64  # pieces looked at; the rest of a long text keeps weight 0


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of the text and what it added to the label's probability, -1 to 1; 0 for what lies between words."""

    text: str
    weight: float

    @property
    def heat(self) -> int:
        """0 to 9, for a colour."""
        return min(9, round(abs(self.weight) * 20))


def words_that_mattered(predict: Callable[[list[str]], list[Prediction]], text: str, label: int) -> list[Word]:
    """The whole text in pieces, in order, each with its weight."""
    places = [match.span() for match in PIECE.finditer(text)]
    seen = places[:LIMIT]
    whole, *without = predict([text, *(text[:start] + text[end:] or " " for start, end in seen)])
    weights = {
        span: whole.probabilities[label] - found.probabilities[label] for span, found in zip(seen, without, strict=True)
    }
    return [Word(text[start:end], weights.get((start, end), 0.0)) for start, end in _cover(places, len(text))]


def _cover(places: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """The places with what lies between them."""
    edges = sorted({0, length, *(edge for place in places for edge in place)})
    return list(pairwise(edges))
