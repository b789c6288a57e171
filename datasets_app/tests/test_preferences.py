"""Preferences are read from texts and from messages, stored in one form, checked, edited and downloaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datasets_app import services
from datasets_app.models import Version
from datasets_app.reading.options import ColumnOptions
from datasets_app.tests.real_files import records
from datasets_app.tests.test_conversations import conversations, csv_of, read
from datasets_app.versions import changes
from testing.datasets import store_dataset
from web.errors import InvalidError

ROWS = [
    ("Where is the station, please?", "Behind the hall.", "No idea."),
    ("這班車幾點開？", "早上八點整。", "不知道。"),
    ("Is it open on a Sunday?", "No, it is closed.", "Who cares?"),
]
STORED = [
    {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    for prompt, chosen, rejected in ROWS
]
FILES: dict[str, tuple[str, bytes]] = {
    "texts": ("a.csv", csv_of(["prompt", "chosen", "rejected"], ROWS)),
    "messages": ("a.jsonl", records(STORED)),
    "answers that begin with the prompt": (
        "a.jsonl",
        records([{"chosen": p["prompt"] + p["chosen"], "rejected": p["prompt"] + p["rejected"]} for p in STORED]),
    ),
    "a prompt in text, and answers that begin with it": (
        "a.jsonl",
        records(
            [
                {"prompt": text, "chosen": p["prompt"] + p["chosen"], "rejected": p["prompt"] + p["rejected"]}
                for (text, _chosen, _rejected), p in zip(ROWS, STORED, strict=True)
            ]
        ),
    ),
    "OpenAI's": (
        "a.jsonl",
        records(
            [
                {
                    "input": {"messages": p["prompt"]},
                    "preferred_output": p["chosen"],
                    "non_preferred_output": p["rejected"],
                }
                for p in STORED
            ]
        ),
    ),
}


@pytest.mark.parametrize("kind_of_file", FILES)
def test_file_of_preferences_is_recognised_by_itself(file: Callable[..., Path], kind_of_file: str) -> None:
    name, content = FILES[kind_of_file]
    rows = read(file(content), name)
    assert rows.kind == "preferences" and conversations(rows.frame) == STORED and rows.left_out == {}


def test_rated_answers_are_refused_with_how_they_become_pairs(file: Callable[..., Path]) -> None:
    rated = [{"prompt": "Why?", "completion": f"Answer {i}", "label": bool(i % 2)} for i in range(6)]
    with pytest.raises(InvalidError, match=r"put a good answer in a column “chosen”.*Nothing was stored"):
        read(file(records(rated)), "kto.jsonl")
    kept = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rated if row["label"]]
    assert read(file(records(kept)), "good.jsonl").kind == "conversations"


def test_chosen_answers_can_be_stored_as_conversations(file: Callable[..., Path]) -> None:
    name, content = FILES["texts"]
    rows = read(file(content), name, kind="conversations")
    assert conversations(rows.frame) == [p["prompt"] + p["chosen"] for p in STORED]
    with pytest.raises(InvalidError, match="a column of the chosen answers and one of the rejected"):
        read(file(content), name, roles={"prompt": "prompt", "chosen": "chosen"})
    assert ColumnOptions(kind="preferences").kind == "preferences"


@pytest.fixture
def pairs(member: Any, file: Callable[..., Path]) -> Version:
    rows = [*ROWS, ("What is the same here?", "Twice this.", "Twice this."), ("And here?", "", "Nothing.")]
    return store_dataset(member, "pairs", file(csv_of(["prompt", "chosen", "rejected"], rows), "pairs.csv"))


@pytest.mark.medium
def test_equal_answers_are_found_and_rows_without_an_answer_left_out(member: Any, pairs: Version) -> None:
    rows_by_code = {finding.code: [example["row"] for example in finding.examples] for finding in pairs.findings.all()}
    assert rows_by_code == {"no_answer": [5], "same_answers": [4]}
    made = changes.make_version(user=member, version=pairs, change={"did": "fix", "code": "same_answers"})
    assert isinstance(made, Version) and made.rows == 3 and not made.findings.exists()


@pytest.mark.medium
def test_personal_data_are_replaced_in_both_answers(member: Any, file: Callable[..., Path]) -> None:
    rows = [*ROWS, ("Whom do I ask?", "Ask jane@example.org.", "Ask joe@example.org.")]
    version = store_dataset(member, "pairs", file(csv_of(["prompt", "chosen", "rejected"], rows), "mail.csv"))
    made = changes.make_version(user=member, version=version, change={"did": "fix", "code": "personal_data"})
    assert isinstance(made, Version) and made.kind == "preferences"
    last = conversations(pl.read_parquet(made.path))[3]
    assert [last[part][0]["content"] for part in ("chosen", "rejected")] == ["Ask [e-mail].", "Ask [e-mail]."]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_download_that_is_uploaded_again_is_the_same_version(
    api: Any, member: Any, file: Callable[..., Path], pairs: Version, file_format: str
) -> None:
    answer = api(member).get(f"/api/datasets/pairs/download?format={file_format}")
    content = b"".join(answer.streaming_content)
    again = services.create_version(user=member, name="again", file=file(content), filename=f"a.{file_format}")
    assert again.kind == "preferences" and again.hash == pairs.hash
    if file_format == "jsonl":
        assert json.loads(content.splitlines()[0]) == STORED[0]


@pytest.mark.medium
def test_answers_are_shown_and_edited_apart(client: Any, member: Any, pairs: Version) -> None:
    client.force_login(member)
    page = client.get("/datasets/pairs/rows/?edit=1&q=station").content.decode()
    assert page.count("Chosen answer") == 2 and page.count("Rejected answer") == 2
    stored = pl.read_parquet(pairs.path)["text"][0]
    client.post("/datasets/pairs/edit/", {"version": 1, "row": 1, "text": stored, "turn_2": "Ask somebody else."})
    made = Version.objects.get(dataset__name="pairs", number=2)
    assert conversations(pl.read_parquet(made.path))[0]["rejected"][0]["content"] == "Ask somebody else."
    report = client.get("/datasets/pairs/").content.decode()
    assert "a chosen and a rejected answer" in report and "Train on this version" in report


@pytest.mark.parametrize(
    "text", ['{"prompt": 1}', "[]", json.dumps(STORED[0]["prompt"]), json.dumps({**STORED[0], "chosen": []})]
)
def test_edit_that_is_no_preference_is_refused(member: Any, pairs: Version, text: str) -> None:
    with pytest.raises(InvalidError):
        changes.make_version(user=member, version=pairs, change={"did": "edit", "rows": {"1": {"text": text}}})
