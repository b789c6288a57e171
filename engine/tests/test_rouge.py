"""ROUGE-L of answers, beside values that were computed by hand and a plain table of lengths."""

import random

import pytest

from engine.tasks.answers import Answers
from engine.tasks.rouge import longest_common_subsequence, rouge_l


@pytest.mark.parametrize(
    ("written", "expected", "score"),
    [
        ("The police killed the gunman", "police kill the gunman", 2 * 3 / 9),
        ("the gunman kill police", "police kill the gunman", 2 * 2 / 8),
        ("Tea, please!", "tea please", 1.0),
        ("我想要兩盒茶", "我要三盒茶", 2 * 4 / 11),  # 我 要 盒 茶
        ("買 iPhone 15", "買iphone 15。", 1.0),
        ("snake_case", "snake case", 1.0),
        ("", "tea", 0.0),
        ("!?", "!?", 1.0),
        ("!", "?", 0.0),
    ],
)
def test_score_is_that_of_a_computation_by_hand(written, expected, score):
    assert rouge_l(written, expected) == pytest.approx(score)


def test_longest_common_subsequence_is_that_of_the_table():
    numbers = random.Random(1)
    for _ in range(50):
        one, other = (numbers.choices("abcde", k=numbers.randrange(90)) for _ in range(2))
        lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, word in enumerate(one):
            for j, second in enumerate(other):
                best = max(lengths[i][j + 1], lengths[i + 1][j])
                lengths[i + 1][j + 1] = lengths[i][j] + 1 if word == second else best
        assert longest_common_subsequence(one, other) == lengths[-1][-1]


def test_answers_have_the_mean_of_their_scores():
    assert Answers(["a", "b"], ["one two", "three"], ["one two", "four"]).scores()["rouge_l"] == 0.5
