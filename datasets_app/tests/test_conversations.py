"""Conversations are read from the files that people have, stored in one form, shown as turns, changed and downloaded."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command

from datasets_app import selectors, services
from datasets_app.checks import chats
from datasets_app.checks.chats import is_refusal
from datasets_app.models import DraftEdit, Version
from datasets_app.reading import columns, readers
from datasets_app.reading.options import ColumnOptions
from datasets_app.reading.rows import Rows, refuse_untrainable, select_rows
from datasets_app.tests.real_files import document, records, workbook
from datasets_app.versions import changes, diff
from samples import SAMPLE_LANGUAGE_MODEL
from testing.datasets import store_dataset
from web.errors import InvalidError

QUESTIONS = ('Where is the "old" station?', "How do I bake bread, quickly?", "這班車幾點開？", "Is it open on Sunday?")
ANSWERS = ("Behind the town hall.", "Knead, rest,\nthen bake it.", "早上八點整。", "No, only on weekdays.")
PAIRS = [*zip(QUESTIONS, ANSWERS, strict=True)]
OPENAI = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in PAIRS]
SHEET: list[Any] = [["問題", "答案"], *map(list, PAIRS)]
SHAREGPT = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in PAIRS]
WITH_SYSTEM = [[{"role": "system", "content": "Be brief."}, *messages] for messages in OPENAI]


def csv_of(header: list[str], rows: Sequence[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(rows).write_parquet(file)
    return file.getvalue()


FILES: dict[str, tuple[str, bytes, list[Any], dict[str, Any]]] = {
    "OpenAI's messages": ("a.jsonl", records([{"messages": m} for m in OPENAI]), OPENAI, {"messages": "messages"}),
    "ShareGPT": ("a.json", document([{"id": 1, "conversations": m} for m in SHAREGPT]), OPENAI, {"messages": "conversations"}),
    "Parquet with structs": ("a.parquet", parquet_of([{"messages": m} for m in OPENAI]), OPENAI, {"messages": "messages"}),
    "messages as JSON in a cell": (
        "a.csv",
        csv_of(["id", "messages"], [(str(i), json.dumps(m)) for i, m in enumerate(OPENAI)]),
        OPENAI,
        {"messages": "messages"},
    ),
    "messages alone in a table": (
        "a.csv", csv_of(["messages"], [(json.dumps(m),) for m in OPENAI]), OPENAI, {"messages": "messages"}
    ),
    "Alpaca": (
        "a.json",
        document([{"instruction": "Answer.", "input": q, "output": a} for q, a in PAIRS]),
        [[{"role": "user", "content": f"Answer.\n{q}"}, {"role": "assistant", "content": a}] for q, a in PAIRS],
        {"prompt": ["instruction", "input"], "answer": "output"},
    ),
    "prompt and completion": (
        "a.jsonl",
        records([{"prompt": q, "completion": a, "system": "Be brief."} for q, a in PAIRS]),
        WITH_SYSTEM,
        {"prompt": "prompt", "answer": "completion", "system": "system"},
    ),
    "prompt and completion as messages": (
        "a.jsonl",
        records([{"prompt": m[:-1], "completion": m[-1:]} for m in WITH_SYSTEM]),
        WITH_SYSTEM,
        {"prompt": "prompt", "answer": "completion"},
    ),
    "question and answer in a table": (
        "a.csv", csv_of(["Question", "Answer"], PAIRS), OPENAI, {"prompt": "Question", "answer": "Answer"}
    ),
    "question and answer in a workbook": (
        "a.xlsx", workbook(Sheet=SHEET), OPENAI, {"prompt": "問題", "answer": "答案"}
    ),
}  # fmt: skip


def read(path: Path, name: str, **options: Any) -> Rows:
    table = readers.read(path, name, limit=1 << 26)
    rows = select_rows(table, columns.choose_columns(table, ColumnOptions(**options)))
    refuse_untrainable(rows)
    return rows


def conversations(rows: pl.DataFrame) -> list[Any]:
    return [json.loads(text) for text in rows["text"]]


@pytest.mark.parametrize("kind_of_file", FILES)
def test_file_of_conversations_is_recognised_by_itself(file: Callable[..., Path], kind_of_file: str) -> None:
    name, content, expected, roles = FILES[kind_of_file]
    rows = read(file(content), name)
    assert rows.kind == "conversations" and conversations(rows.frame) == expected
    assert rows.frame["label"].unique().to_list() == [""] and rows.left_out == {}
    assert rows.choice.roles == {role: tuple([c] if isinstance(c, str) else c) for role, c in roles.items()}


@pytest.mark.parametrize(
    "table",
    [
        csv_of(
            ["question", "answer"], [(f"Is number {i} the right one?", "yes" if i % 2 else "no") for i in range(12)]
        ),
        csv_of(
            ["prompt", "response", "label"], [(f"a b {i}", f"c d {i}", "good" if i % 2 else "bad") for i in range(12)]
        ),
        csv_of(["messages", "label"], [(f"see you at {i}", "ham" if i % 2 else "spam") for i in range(12)]),
    ],
)
def test_texts_with_labels_are_no_conversations(file: Callable[..., Path], table: bytes) -> None:
    rows = read(file(table), "a.csv")
    assert rows.kind == "labels" and rows.frame["label"].n_unique() == 2


@pytest.mark.parametrize(
    "pairs",
    [
        [(f"What is {i} plus {i}?", str(2 * i)) for i in range(20)],
        [(f"Which town is number {i}?", f"Town {i}") for i in range(20)],
    ],
)
def test_short_answers_that_differ_are_no_labels(file: Callable[..., Path], pairs: list[tuple[str, str]]) -> None:
    rows = read(file(csv_of(["question", "answer"], pairs)), "a.csv")
    assert rows.kind == "conversations"
    assert conversations(rows.frame)[1] == [
        {"role": "user", "content": pairs[1][0]},
        {"role": "assistant", "content": pairs[1][1]},
    ]


def test_person_says_which_columns_are_prompt_and_answer(file: Callable[..., Path]) -> None:
    path = file(csv_of(["a", "b", "c"], [(q, a, "Be brief.") for q, a in PAIRS]))
    rows = read(path, "a.csv", roles={"a": "prompt", "b": "answer", "c": "system"})
    assert conversations(rows.frame) == WITH_SYSTEM
    assert conversations(read(path, "a.csv", kind="conversations").frame) == OPENAI
    assert conversations(read(path, "a.csv", kind="conversations", text=("a",), label=("b",)).frame) == OPENAI
    with pytest.raises(InvalidError, match="need a column of messages, or a prompt and its answer"):
        read(path, "a.csv", roles={"a": "prompt"})
    with pytest.raises(InvalidError, match="There is no column “d”"):
        read(path, "a.csv", roles={"d": "messages"})
    with pytest.raises(InvalidError, match="“judge” is no role"):
        ColumnOptions(roles={"a": "judge"})


def test_file_of_conversations_can_still_be_classified(file: Callable[..., Path]) -> None:
    rows = [{"prompt": q, "completion": a, "topic": "ab"[i % 2]} for i, (q, a) in enumerate(PAIRS)]
    read_rows = read(file(records(rows)), "a.jsonl", text=("prompt",), label=("topic",))
    assert read_rows.kind == "labels" and read_rows.frame["text"].to_list() == [*QUESTIONS]


UNUSABLE = {
    "no_messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": "Yes."}],
    "unknown_role": [{"role": "narrator", "content": "Once"}, {"role": "assistant", "content": "Yes."}],
    "no_answer": [{"role": "user", "content": "Why?"}],
    "broken_tool_call": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "why", "arguments": '{"a": '}}]},
    ],
}


def test_rows_that_cannot_be_used_are_left_out_counted_and_found(member: Any, file: Callable[..., Path]) -> None:
    content = records([{"messages": m} for m in [*OPENAI, *UNUSABLE.values()]])
    version = store_dataset(member, "faq", file(content, "a.jsonl"))
    assert version.rows == 4 and version.source["left_out"] == dict.fromkeys(UNUSABLE, 1)
    findings = {finding.code: finding for finding in version.findings.all()}
    assert {*UNUSABLE} <= {*findings}
    assert [findings[code].examples[0]["row"] for code in UNUSABLE] == [5, 6, 7, 8]


def test_hostile_characters_and_depth_do_no_harm(member: Any, file: Callable[..., Path]) -> None:
    hidden = [{"role": "user", "content": "a\x00b \ud800 c"}, {"role": "assistant", "content": "it is\x00so"}]
    nested = "[" * 100_000
    call = {"function": {"name": "f", "arguments": '{"a":' * 970 + "1" + "}" * 970}}
    deep = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    cells = [json.dumps(hidden), json.dumps(OPENAI[0]), nested, json.dumps(OPENAI[1]), json.dumps(deep)]
    version = store_dataset(member, "faq", file(csv_of(["messages"], [(cell,) for cell in cells]), "a.csv"))
    stored = conversations(pl.read_parquet(version.path))
    assert stored[0][0]["content"] == "a\ufffdb ? c" and version.source["left_out"] == {
        "no_messages": 1,
        "broken_tool_call": 1,
    }


@pytest.fixture
def faq(member: Any, file: Callable[..., Path]) -> Version:
    rows = [{"messages": m, "split": ("train", "train", "test", "eval")[i]} for i, m in enumerate(WITH_SYSTEM)]
    version = store_dataset(member, "faq", file(records(rows), "faq.jsonl"))
    assert version.kind == "conversations" and version.labels == {}
    return version


def test_search_looks_at_what_is_said_and_not_at_the_json(faq: Version) -> None:
    def count_rows(text: str) -> int:
        return selectors.rows_page(faq, text=text, start=0, size=9)[1]

    assert [count_rows(text) for text in ('"OLD" station', "rest,\nthen", "八點", "be brief")] == [1, 1, 1, 4]
    assert [count_rows(text) for text in ("role", "assistant", '"content"', "}, {")] == [0, 0, 0, 0]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_download_that_is_uploaded_again_is_the_same_version(
    api: Any, member: Any, file: Callable[..., Path], faq: Version, file_format: str
) -> None:
    answer = api(member).get(f"/api/datasets/faq/download?format={file_format}")
    content = b"".join(answer.streaming_content)
    again = services.create_version(user=member, name="again", file=file(content), filename=f"a.{file_format}")
    assert again.hash == faq.hash and again.splits == faq.splits
    if file_format == "jsonl":
        assert json.loads(content.splitlines()[0]) == {"messages": WITH_SYSTEM[0], "split": "train"}


def test_pages_show_turns_and_offer_a_run(client: Any, member: Any, faq: Version) -> None:
    client.force_login(member)
    rows = client.get("/datasets/faq/rows/?edit=1").content.decode()
    assert (
        rows.count('class="turn"') == 12
        and "Behind the town hall." in rows
        and "&quot;role&quot;" not in rows.split('id="edit"')[0]
    )
    assert 'name="turn_2"' in rows and 'id="edit-label"' not in rows
    report = client.get("/datasets/faq/").content.decode()
    assert "Ready to train" in report and "Train on this version" in report
    assert "Find a model for it" not in report and "Wrong labels" not in report


@pytest.mark.medium
def test_edited_message_makes_a_version_that_diff_shows(client: Any, member: Any, faq: Version) -> None:
    client.force_login(member)
    stored = pl.read_parquet(faq.path)["text"][0]
    form = {"version": 1, "row": 1, "text": stored, "turn_2": "Behind the museum."}
    client.post("/datasets/faq/edit/", form)
    new = Version.objects.get(dataset__name="faq", number=2)
    assert conversations(pl.read_parquet(new.path))[0][2]["content"] == "Behind the museum."
    assert [c["count"] for c in diff.compare_versions(faq, new)["changes"]] == [0, 1, 0, 0]
    page = client.get("/datasets/faq/compare/?old=1&new=2").content.decode()
    assert "User: Where is the" in page and "<ins>" in page and "&quot;role&quot;" not in page
    client.post("/datasets/faq/edit/", form | {"version": 2, "draft": "1", "turn_1": "Where now?"})
    assert DraftEdit.objects.count() == 1
    assert "User: Where now?" in client.get("/datasets/faq/draft/?version=2").content.decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no JSON", "no list of messages"),
        (json.dumps([{"role": "user", "content": "Why?"}]), "needs an answer"),
        (json.dumps([{"role": "narrator", "content": "Why?"}]), "unknown role"),
    ],
)
def test_edit_that_is_no_conversation_is_refused(faq: Version, member: Any, text: str, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        changes.make_version(user=member, version=faq, change={"did": "edit", "rows": {"1": {"text": text}}})


@pytest.mark.medium
def test_api_answers_kind_columns_and_rows(api: Any, member: Any) -> None:
    data = {
        "name": "faq",
        "file": SimpleUploadedFile("a.csv", csv_of(["ask", "reply"], PAIRS)),
        "column_roles": json.dumps({"ask": "prompt", "reply": "answer"}),
    }
    body = api(member).post("/api/datasets", data, format="multipart").json()
    assert body["kind"] == "conversations" and body["labels"] == {} and body["rows"] == 4
    assert body["read"]["columns"] == {
        "messages": None, "prompt": "ask", "answer": "reply", "system": None, "chosen": None, "rejected": None, "split": None
    }  # fmt: skip
    row = api(member).get("/api/datasets/faq/rows?q=station").json()["results"][0]
    assert json.loads(row["text"]) == OPENAI[0] and row["label"] == ""
    wrong = api(member).post("/api/datasets", {**data, "column_roles": '["ask"]'}, format="multipart")
    assert wrong.status_code == 400 and wrong.json()["errors"][0]["field"] == "column_roles"


@pytest.mark.medium
def test_preview_shows_conversations_and_takes_the_roles_of_columns(client: Any, member: Any) -> None:
    client.force_login(member)
    upload = SimpleUploadedFile("faq.csv", csv_of(["question", "answer"], PAIRS))
    address = client.post("/datasets/new/", {"file": upload}).url
    page = client.get(address).content.decode()
    assert page.count('class="conversation"') == 3 and "First rows as they would be stored" in page
    assert '<option value="prompt" selected>' in page and '<option value="answer" selected>' in page
    form = {"name": "faq", "column_0": "question", "role_0": "answer", "column_1": "answer", "role_1": "prompt"}
    client.post(address, form)
    version = Version.objects.get()
    assert conversations(pl.read_parquet(version.path))[0][0]["content"] == ANSWERS[0]
    assert "prompt: answer" in client.get("/datasets/faq/?tab=versions").content.decode()


def test_command_takes_the_roles_of_columns(member: Any, file: Callable[..., Path], capsys: Any) -> None:
    path = str(file(csv_of(["ask", "reply"], PAIRS), "a.csv"))
    call_command("datasets", "validate", path, "--column-role", "ask=prompt", "--column-role", "reply=answer", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "conversations" and answer["read"]["columns"]["answer"] == "reply"


@pytest.mark.medium
def test_run_on_conversations_starts_at_every_door(api: Any, client: Any, member: Any, faq: Version) -> None:
    config = {"experiment_name": "one", "data": {"dataset_name": "faq"}}
    answer = api(member).post("/api/train/validate", config, format="json").json()
    assert answer["config"]["task"] == "causal_lm" and answer["config"]["model"]["name"] == SAMPLE_LANGUAGE_MODEL
    assert api(member).post("/api/train", config, format="json").status_code == 202
    client.force_login(member)
    assert "faq@1 ·" in client.get("/train/").content.decode()
    assert "which answer in words" in client.get("/models/?dataset=faq@1").content.decode()
    assert api(member).get("/api/models/recommend?dataset=faq").json()["models"] == []
    classifier = api(member).post("/api/train", config | {"task": "sequence_classification"}, format="json").json()
    assert "which is data for causal_lm, not for sequence_classification" in str(classifier)


CHECKED = {
    "role_order": [{"role": "user", "content": "Hello"}, {"role": "user", "content": "you?"}, {"role": "assistant", "content": "Yes."}],
    "empty_turn": [{"role": "user", "content": " "}, {"role": "assistant", "content": "Good morning to you."}],
    "personal_data": [
        {"role": "user", "content": "Who sells it?"},
        {"role": "assistant", "content": "Ask.", "tool_calls": [{"function": {"name": "mail", "arguments": '{"to": "jane@example.org"}'}}]},
    ],
    "markup": [{"role": "user", "content": "Make it <b>bold</b> &amp; big"}, {"role": "assistant", "content": "Here."}],
    "control_characters": [{"role": "user", "content": "zero\u200bwidth here"}, {"role": "assistant", "content": "There."}],
    "long_conversation": [{"role": "user", "content": "Tell me all"}, {"role": "assistant", "content": "word " * 1100}],
    "refusal": [{"role": "user", "content": "Pick this lock"}, {"role": "assistant", "content": "I’m sorry, but I can't help with that."}],
}  # fmt: skip


def test_each_fault_of_a_conversation_is_found_with_its_row(member: Any, file: Callable[..., Path]) -> None:
    content = records([{"messages": m} for m in [*OPENAI, *CHECKED.values(), OPENAI[0]]])
    version = store_dataset(member, "faq", file(content, "a.jsonl"))
    rows_by_code = {
        finding.code: [example["row"] for example in finding.examples] for finding in version.findings.all()
    }
    assert rows_by_code == {code: [5 + i] for i, code in enumerate(CHECKED)} | {"exact_duplicate": [12]}


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("As an AI language model, I have no opinion.", True),
        ("I cannot assist with this request.", True),
        ("抱歉，我無法協助您。", True),
        ("作為一個AI，我沒有感受。", True),
        ("I'm sorry to hear that. Your refund is on its way.", False),
        ("I can't wait to see you.", False),
        ("As an aid to memory, write it down.", False),
        ("抱歉讓您久等，我們今天出貨。", False),
    ],
)
def test_refusals_are_told_from_apologies(answer: str, refuses: bool) -> None:
    assert is_refusal(answer) is refuses


@pytest.mark.medium
@pytest.mark.parametrize("code", list(CHECKED))
def test_fault_of_a_conversation_is_fixed_in_a_new_version(member: Any, file: Callable[..., Path], code: str) -> None:
    version = store_dataset(
        member, "faq", file(records([{"messages": m} for m in [*OPENAI, *CHECKED.values()]]), "a.jsonl")
    )
    made = changes.make_version(user=member, version=version, change={"did": "fix", "code": code})
    assert isinstance(made, Version) and not made.findings.filter(code=code).exists()
    assert made.rows == version.rows - (code in ("role_order", "empty_turn", "refusal", "long_conversation"))
    if code == "personal_data":
        assert "[e-mail]" in pl.read_parquet(made.path)["text"][6]


@pytest.mark.parametrize(
    "roles", ["sua", "ua", "uaua", "uatta", "uata"], ids=lambda roles: f"in order: {roles}"
)  # fmt: skip
def test_usual_orders_of_roles_are_in_order(roles: str) -> None:
    assert not chats.has_roles_out_of_order(conversation_of(roles))


@pytest.mark.parametrize("roles", ["a", "sa", "usa", "uua", "uaa", "uta", "uut"])
def test_other_orders_of_roles_are_out_of_order(roles: str) -> None:
    assert chats.has_roles_out_of_order(conversation_of(roles))


def conversation_of(roles: str) -> list[dict[str, Any]]:
    """Return messages by the first letters of their roles; the assistant calls the tools that follow."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    messages: list[dict[str, Any]] = [{"role": names[letter], "content": "x"} for letter in roles]
    for message, following in pairwise(messages):
        if message["role"] == "assistant" and following["role"] == "tool":
            message["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    return messages


@pytest.mark.medium
def test_same_prompt_with_different_answers_and_in_two_splits_is_found(member: Any, file: Callable[..., Path]) -> None:
    rows = [
        {"question": "How far is it to the town from here?", "answer": "It is two miles.", "split": "train"},
        {"question": "How far is it to the town from here?", "answer": "It is nine miles.", "split": "test"},
        {
            "question": "Who wrote the long letter to the mayor of this town?",
            "answer": "A farmer did.",
            "split": "train",
        },
        {
            "question": "Who wrote the long letter to the mayor of this town, please?",
            "answer": "A farmer did.",
            "split": "test",
        },
        {"question": "What time does it close?", "answer": "It closes at nine.", "split": "eval"},
    ]
    version = store_dataset(member, "faq", file(records(rows), "a.jsonl"))
    rows_by_code = {
        finding.code: [example["row"] for example in finding.examples] for finding in version.findings.all()
    }
    assert rows_by_code == {"answer_conflict": [1, 2], "prompt_leakage": [1, 2, 3, 4], "similar_prompt": [4]}
    assert version.findings.get(code="prompt_leakage").severity == "error"
    made = changes.make_version(user=member, version=version, change={"did": "fix", "code": "prompt_leakage"})
    assert isinstance(made, Version) and made.splits == {"test": 2, "eval": 1}


def test_languages_are_those_of_what_people_and_the_model_say(member: Any, file: Callable[..., Path]) -> None:
    rows = [
        {"question": f"請問第{i}班公車什麼時候會到車站？", "answer": f"大約{i}分鐘之後就會到了。"} for i in range(12)
    ]
    version = store_dataset(member, "faq", file(records(rows), "a.jsonl"))
    assert version.languages == {"Chinese (Traditional)": 12}
