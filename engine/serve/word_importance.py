"""Which words an answer depends on: what each one adds to a probability, or to a score.

Leaving one out: each word is left out once, and the change of the probability is its weight. engine.serve.integrated_gradients
is the other method.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Literal

from engine.serve.answers import Answer, ScorePrediction, values_of

Method = Literal["leave_one_out", "integrated_gradients"]
METHODS: tuple[Method, ...] = ("leave_one_out", "integrated_gradients")
CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# A Chinese, Japanese or Korean character is a word of its own; elsewhere a word is letters, digits and what joins them.
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’_-]\w+)*")
MOST_WORDS = 64
MOST_SECONDS = 3.0  # a person waits for the answer
BATCH = 8  # words that are left out, each in a text of its own, before time is checked

Piece = tuple[int, int, int]  # which text of a pair, and start and end in it
Predict = Callable[[list[str], list[str] | None], Sequence[Answer]]


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a text and what it adds to the explained value; None if that was not measured.

    scale: a change of the value that is as large as it can be, or as large as scores usually differ.
    """

    text: str
    weight: float | None
    scale: float = 1.0

    @property
    def heat(self) -> int:
        """The strength of its colour, 0 to 9."""
        return min(9, round(abs(self.weight or 0) / self.scale * 20))


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the words of a text, or of both texts of a pair, add to one output of a model.

    output: its index. value: its probability, or the score. words, pair_words: each text in pieces, in order.
    completeness_error: how far the sum of all weights is from what the text as a whole adds; None if the method does not
    promise that they are equal.
    """

    output: int
    value: float
    words: list[Word]
    pair_words: list[Word] | None = None
    completeness_error: float | None = None


def measure_word_importance(
    predict: Predict, text: str, outputs: Sequence[int], text_pair: str | None = None, seconds: float = MOST_SECONDS
) -> list[Explanation]:
    """Leave each word out once, and return what that changes in each of some outputs of a model.

    The first MOST_WORDS words have weights, those of both texts of a pair in turns, or as many as `seconds` allow.
    """
    deadline = time.monotonic() + seconds
    texts = [text] if text_pair is None else [text, text_pair]
    (answer,) = predict_variants(predict, [texts])
    words_of_text = [[(which, *match.span()) for match in WORD.finditer(each)] for which, each in enumerate(texts)]
    in_turns = [word for turn in zip_longest(*words_of_text) for word in turn if word is not None]
    words = in_turns[:MOST_WORDS]
    values: dict[Piece, tuple[float, ...]] = {}
    for first in range(0, len(words), BATCH):
        batch = words[first : first + BATCH]
        answers = predict_variants(predict, [leave_out(texts, word) for word in batch])
        values |= {word: values_of(other) for word, other in zip(batch, answers, strict=True)}
        if time.monotonic() > deadline:
            break
    scale = answer.deviation if isinstance(answer, ScorePrediction) else 1.0
    explanations = []
    for output in outputs:
        value = values_of(answer)[output]
        weights = {word: value - without[output] for word, without in values.items()}
        explanations.append(make_explanation(texts, output, value, weights, scale))
    return explanations


def make_explanation(
    texts: list[str],
    output: int,
    value: float,
    weights: Mapping[Piece, float],
    scale: float,
    completeness_error: float | None = None,
) -> Explanation:
    """Return an explanation with all pieces of the texts, those without a weight too."""
    words = [
        [Word(content[start:end], weights.get((which, start, end)), scale) for which, start, end in pieces]
        for content, pieces in zip(texts, split_into_pieces(texts), strict=True)
    ]
    return Explanation(output, value, words[0], words[1] if len(words) > 1 else None, completeness_error)


def split_into_pieces(texts: list[str]) -> list[list[Piece]]:
    """Return the words of each text and what lies between them."""
    pieces = []
    for which, text in enumerate(texts):
        edges = sorted({0, len(text), *(edge for match in WORD.finditer(text) for edge in match.span())})
        pieces.append([(which, start, end) for start, end in pairwise(edges)])
    return pieces


def leave_out(texts: list[str], word: Piece) -> list[str]:
    """Return the texts without a word."""
    which, start, end = word
    without = texts[which][:start] + texts[which][end:]
    return [*texts[:which], without or " ", *texts[which + 1 :]]


def predict_variants(predict: Predict, variants: list[list[str]]) -> Sequence[Answer]:
    """Return the answers to texts, or to pairs of texts: (variants, one text or two)."""
    text_pairs = [variant[1] for variant in variants] if len(variants[0]) > 1 else None
    return predict([variant[0] for variant in variants], text_pairs)
