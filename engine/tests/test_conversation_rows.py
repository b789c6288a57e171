"""From files to conversations: which columns are read, and what is left out."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.config import RunConfig
from engine.config_sections import DataSection
from engine.data.conversation_rows import load_chat_rows
from engine.data.conversations import from_text, question_of, read_conversation
from engine.data.documents import split_documents
from engine.data.labelled_rows import Rows
from engine.data.rows_ahead import read_rows
from engine.errors import ColumnMissingError, DataUnreadableError, TooFewRowsError
from testing.language_models import conversation

DATA: DataSection = RunConfig.parse({"task": "causal_lm"}).data


def load(tmp_path: Path, rows: list[Any], **settings: Any) -> Rows:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return load_chat_rows(path, DATA.model_copy(update=settings), seed=1)


def all_conversations(rows: Rows) -> list[Any]:
    return [json.loads(text) for text in [*rows.train.texts, *rows.eval.texts]]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi {}"}, {"role": "assistant", "content": "Hello"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi {}"}]},
                {"role": "assistant", "content": "Hello"},
            ]
        },
        {"conversations": [{"from": "human", "value": "Hi {}"}, {"from": "gpt", "value": "Hello"}]},
        {"prompt": "Hi {}", "completion": "Hello"},
    ],
)
def test_shapes_of_rows_become_one_form(row, tmp_path):
    rows = load(tmp_path, [json.loads(json.dumps(row).replace("{}", f"number {i}")) for i in range(12)])
    assert conversation("Hi number 3", "Hello") in all_conversations(rows)
    assert len(all_conversations(rows)) == 12 and len(rows.eval) >= 1


def test_texts_are_plain_texts(tmp_path):
    rows = load(tmp_path, [{"text": f"Once upon {i}"} for i in range(12)])
    assert [{"role": "text", "content": "Once upon 3"}] in all_conversations(rows)


def test_stored_plain_texts_are_read(tmp_path):
    rows = load(tmp_path, [{"text": json.dumps(from_text(f"[{i}] Once upon")), "label": ""} for i in range(12)])
    assert from_text("[3] Once upon") in all_conversations(rows) and rows.skipped == 0


@pytest.mark.parametrize("mark", ["\n<|endoftext|>\n", "\f"])
def test_marks_divide_a_text_file_into_documents(mark, tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text(mark.join(f"Story {i}.\n\nIt is short." for i in range(12)), encoding="utf-8")
    assert from_text("Story 3.\n\nIt is short.") in all_conversations(load_chat_rows(path, DATA, 1))


def test_text_file_without_marks_is_divided_at_paragraphs_and_keeps_every_word():
    paragraphs = [f"Paragraph {i} " + "goes on and on. " * 20 for i in range(60)]
    documents = split_documents("\n\n".join(paragraphs))
    assert len(documents) > 10 and "\n\n".join(documents) == "\n\n".join(paragraphs).strip("\n")
    assert all(document.startswith("Paragraph") for document in documents)


def test_text_file_without_paragraphs_is_divided_at_lines():
    documents = split_documents("\r\n".join(f"Line {i} is here and says something." for i in range(200)))
    assert len(documents) > 3 and all(document.startswith("Line") for document in documents)


def test_parquet_is_read_too(tmp_path):
    path = tmp_path / "data.parquet"
    pl.DataFrame({"messages": [conversation(f"Hi {i}", "Hello") for i in range(12)]}).write_parquet(path)
    assert len(all_conversations(load_chat_rows(path, DATA, 1))) == 12


def test_unusable_rows_are_left_out_by_reason(tmp_path):
    good = [{"messages": conversation(f"Hi {i}", "Hello")} for i in range(10)]
    call = {"type": "function", "function": {"name": "f", "arguments": "{not json"}}
    bad = [
        {"messages": "no JSON ["},
        {"messages": []},
        {"messages": [{"role": "user", "content": {"image": 1}}]},
        {"messages": [{"role": "narrator", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": conversation("a", "  ")},
        {"messages": [*conversation("a"), {"role": "assistant", "content": None, "tool_calls": [call]}]},
    ]
    rows = load(tmp_path, [*good, *bad])
    assert rows.skipped_by_reason == {"no_messages": 3, "unknown_role": 1, "no_answer": 2, "broken_tool_call": 1}


def test_tool_calls_have_their_arguments_as_a_mapping_and_what_follows_the_last_answer_is_dropped():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Taipei"}'}}
    read = read_conversation(
        [
            *conversation("a"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "user", "content": "b"},
        ]
    )
    assert read[-1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"city": "Taipei"}}
    assert question_of(read) == "a"


def test_conversations_with_the_same_question_stay_in_one_split(tmp_path):
    questions = [f"What is the capital of country number {i % 20} on the list of all countries?" for i in range(60)]
    conversations = [conversation(text, str(i), system="Answer " * 40) for i, text in enumerate(questions)]
    rows = load(tmp_path, [{"messages": messages} for messages in conversations], eval_fraction=0.3)
    train, held_out = ({json.loads(text)[1]["content"] for text in split.texts} for split in (rows.train, rows.eval))
    assert train and held_out and not train & held_out


def test_split_column_is_respected(tmp_path):
    splits = ["train", "train", "dev", "test"]
    rows = load(tmp_path, [{"messages": conversation(str(i), "b"), "split": name} for i, name in enumerate(splits)])
    assert [len(split or ()) for split in (rows.train, rows.eval, rows.test)] == [2, 1, 1]


def test_files_that_hold_no_conversations_are_refused_in_words(tmp_path):
    with pytest.raises(ColumnMissingError, match=r"no column messages\. Their columns are: a"):
        load(tmp_path, [{"a": 1}])
    with pytest.raises(DataUnreadableError, match="line 2 holds no JSON object"):
        load(tmp_path, [{"messages": []}, 3])
    with pytest.raises(TooFewRowsError, match="1 without an answer of the assistant"):
        load(tmp_path, [{"messages": [{"role": "user", "content": "a"}]}])
    with pytest.raises(DataUnreadableError, match="does not exist"):
        load_chat_rows(tmp_path / "none.jsonl", DATA, 1)


@pytest.mark.medium
def test_sample_orders_are_found_by_name(tmp_path):
    rows = read_rows("orders", DATA, "causal_lm", 1, tmp_path)
    assert [len(split or ()) for split in (rows.train, rows.eval, rows.test)] == [1600, 200, 200]
