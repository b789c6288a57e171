"""Sentences are English strings that remember what they were made of."""

import ast
import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import errors
from engine.sentences import Sentence, join, join_sentences


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


def test_sentences_follow_each_other() -> None:
    joined = join_sentences([Sentence("One {name}.", name="row"), "Two rows."])
    assert joined == "One row. Two rows." and isinstance(joined, Sentence)
    assert errors.ConfigError([errors.Problem("a", joined, "wrong")]).message is joined


def test_errors_that_end_a_task_can_be_said_in_another_language() -> None:
    names = {"Problem"} | {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.EngineError)
    }
    for path in Path(engine.__file__).parent.rglob("*.py"):
        if {"tests", "serve"} & {*path.parts} or path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                text = node.args[1 if node.func.id == "Problem" else 0]
            elif isinstance(node, ast.Assign | ast.AugAssign) and "message" in ast.unparse(node).split(" ", 1)[0]:
                text = node.value
            assert not isinstance(text, ast.JoinedStr), f"{path.name}: {ast.unparse(node)}"
