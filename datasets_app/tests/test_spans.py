"""What is wrong with spans and with the tags that they are made from is a finding that names the rows."""

import json

import pytest

from datasets_app.checks import findings
from datasets_app.tests.real_files import document, lines, records
from datasets_app.tests.test_real_files import read

GOOD = ["Ada B-PER", "Byron I-PER", "lived O", "in O", "London B-LOC", ""]


def results_of(path, name):
    _table, rows = read(path, name)
    return rows, {result.code: result for result in findings.run_checks(rows).results}


@pytest.mark.parametrize(
    "sentence",
    [
        ["in O", "New I-LOC", "York I-LOC", ""],
        ["Ada B-PER", "York I-LOC", ""],
        ["Ada B-PER", "Byron I-PER", "lived", ""],
    ],
    ids=["I- behind O", "I- behind another label", "a token without a tag"],
)
def test_broken_sequence_of_tags_is_a_finding_that_names_the_row(file, sentence):
    content = lines([*GOOD, *sentence, *GOOD])
    rows, results = results_of(file(content), "a.conll")
    assert rows.frame.height == 3
    assert results["broken_tags"].rows == [2]
    assert results["broken_tags"].examples[0]["row"] == 2


def test_broken_sequence_in_lists_of_tokens_is_a_finding(file):
    good = {"tokens": ["Ada", "lived"], "ner_tags": ["B-PER", "O"]}
    bad = {"tokens": ["Ada", "lived"], "ner_tags": ["O", "E-PER"]}
    _rows, results = results_of(file(records([good, good, bad])), "a.jsonl")
    assert results["broken_tags"].rows == [3]


def test_tags_in_iob1_are_no_broken_sequences(file):
    sentence = ["in O", "New I-LOC", "York I-LOC", "Paris B-LOC", ""]  # B- only behind a span of the same label
    rows, results = results_of(file(lines(sentence * 3)), "a.conll")
    assert "broken_tags" not in results
    assert [span["start"] for span in json.loads(rows.frame["label"][0])] == [3, 12]


def test_rows_with_more_tags_than_tokens_are_named(file):
    good = {"tokens": ["Ada", "lived"], "ner_tags": ["B-PER", "O"]}
    bad = {"tokens": ["Ada", "died"], "ner_tags": ["B-PER"]}
    rows, results = results_of(file(records([good, bad, good])), "a.jsonl")
    assert rows.left_out == {"tags_do_not_fit": 1}
    assert results["tags_do_not_fit"].count == 1
    assert results["tags_do_not_fit"].examples == [{"row": 2, "text": "Ada died", "label": ""}]


def test_spans_that_overlap_or_end_beyond_the_text_are_named(file):
    spans = [[[0, 3, "PER"]], [[0, 3, "PER"], [2, 5, "LOC"]], [[0, 30, "PER"]], [[2, 2, "PER"]]]
    content = document([{"id": i, "text": f"Ada lived {i}", "label": given} for i, given in enumerate(spans)])
    _rows, results = results_of(file(content), "a.json")
    assert results["overlapping_spans"].rows == [2]
    assert results["span_beyond_text"].rows == [3, 4]
