"""Sentences are English strings that remember what they were made of."""

import copy
import json
import pickle

import numpy as np
import pytest

from engine.sentences import Sentence, join


def test_sentence_is_its_english_and_packs_what_it_was_made_of() -> None:
    inner = Sentence("{count:,} rows", count=np.int64(1200))
    sentence = Sentence("{rows} of {name}.", rows=inner, name="a {strange} name")
    assert sentence == "1,200 rows of a {strange} name." and json.dumps(sentence) == f'"{sentence}"'
    assert json.loads(json.dumps(sentence.pack())) == {
        "template": "{rows} of {name}.",
        "arguments": {"rows": {"template": "{count:,} rows", "arguments": {"count": 1200}}, "name": "a {strange} name"},
    }


def test_copies_remember_it_too() -> None:
    sentence = Sentence("{count} rows of {{}}.", count=2)
    for copied in (copy.deepcopy(sentence), pickle.loads(pickle.dumps(sentence))):
        assert copied == "2 rows of {}." and copied.pack() == sentence.pack()


def test_parts_are_joined_as_an_enumeration() -> None:
    assert [join([]), join(["a"]), join(["a", "b", "c"])] == ["", "a", "a, b, c"]


@pytest.mark.parametrize("number", [float("nan"), float("-inf"), np.float32("inf")])
def test_number_that_json_lacks_leaves_a_sentence_in_english(number):
    inner = Sentence("loss {loss:.2f}", loss=number)
    assert inner.pack() is None and Sentence("Stopped: {why}", why=inner).pack() is None


def test_numbers_of_numpy_are_packed():
    packed = Sentence("{count} rows, {share:.1f}", count=np.int64(3), share=np.float32(0.5)).pack()
    assert json.loads(json.dumps(packed))["arguments"] == {"count": 3, "share": 0.5}
