"""ROUGE-L: how much of an expected answer a written one has, in the same order (Lin, 2004)."""

from __future__ import annotations

import re

# Chinese and Japanese are written without spaces, so each of their characters counts as a word.
SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{SINGLE}]|[^\W_{SINGLE}]+")


def rouge_l(written: str, expected: str) -> float:
    """Return the F-measure of the longest common subsequence of words, from 0 to 1. Case and punctuation do not count."""
    words = WORD.findall(written.lower())
    expected_words = WORD.findall(expected.lower())
    if not words and not expected_words:
        return float(written.strip() == expected.strip())
    return 2 * longest_common_subsequence(words, expected_words) / (len(words) + len(expected_words))


def longest_common_subsequence(one: list[str], other: list[str]) -> int:
    """Return how many words stand in both lists in the same order.

    Bit i of `rest` is 0 where the result grows at word i of `one`, so each word of `other` is a few operations on one large number
    (Hyyrö, 2004).
    """
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(one)) - 1
    rest = every
    for word in other:
        matching = rest & places.get(word, 0)
        rest = ((rest + matching) | (rest - matching)) & every
    return len(one) - rest.bit_count()
