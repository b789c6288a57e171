"""Plain texts are read as documents, told from tables, checked, stored, searched, edited and downloaded."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from datasets_app import services
from datasets_app.checks.text_statistics import windows_per_text
from datasets_app.models import Version
from datasets_app.reading.columns import choose_columns
from datasets_app.reading.options import ColumnOptions, FileOptions
from datasets_app.reading.readers import read
from datasets_app.reading.rows import select_rows
from datasets_app.tests.real_files import archive
from datasets_app.tests.test_conversations import csv_of
from datasets_app.versions import changes
from engine.config_sections import SAMPLE_MODEL
from engine.data.conversations import from_text
from engine.data.documents import split_documents
from testing.datasets import store_dataset
from web.errors import InvalidError


def paragraph(number: int) -> str:
    """Return a few sentences in two lines, different for each number."""
    generator = random.Random(number)
    chosen = [
        "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=4)) + generator.choice(["", "", "", ",", "."])
        for _ in range(60)
    ]
    return f"On day {number} {' '.join(chosen[:30])}\n{' '.join(chosen[30:])}"


PARAGRAPHS = [paragraph(number) for number in range(24)]
BOOK = "\n\n".join(PARAGRAPHS).encode()


def rows_of(content: bytes, name: str, tmp_path: Any, kind: str = "", **options: Any) -> Any:
    path = tmp_path / "sent"
    path.write_bytes(content)
    prose = kind == "text" if kind else None
    table = read(path, name, limit=1 << 20, options=FileOptions(prose=prose))
    return select_rows(table, choose_columns(table, ColumnOptions(kind=kind, **options)))


def contents(rows: Any) -> list[str]:
    assert rows.kind == "text"
    return [json.loads(text)[0]["content"] for text in rows.frame["text"]]


@pytest.mark.parametrize("name", ["book.txt", "notes.md", "book"])
def test_text_file_is_read_as_documents_by_itself(name, tmp_path):
    documents = contents(rows_of(BOOK, name, tmp_path))
    assert len(documents) > 5 and "\n\n".join(documents) == BOOK.decode()


def test_text_in_another_encoding_is_read(tmp_path):
    text = "\n\n".join(
        f"第{i}天，船離開了港口，風把它帶往東方。船上的人帶著麵包和水，心裡都很平靜。" * 3 for i in range(12)
    )
    documents = contents(rows_of(text.encode("big5"), "book.txt", tmp_path))
    assert "\n\n".join(documents) == text


@pytest.mark.parametrize(
    "line",
    ["Cold fish and a long wait\tbad", "Warm bread, kind people\tgood", "__label__bad Cold fish", "bad: Cold fish"],
)
def test_labelled_text_file_is_no_prose(line, tmp_path):
    other = line.replace("bad", "fine").replace("good", "poor")
    content = "\n".join(
        f"{text} {i}" if line.startswith(("__", "bad")) else f"{i} {text}" for i in range(40) for text in (line, other)
    )
    assert rows_of(content.encode(), "reviews.txt", tmp_path).kind == "labels"


def test_person_decides_whether_a_text_file_is_a_table(tmp_path):
    lines = b"\n".join(b"%d: the ship sailed on, and on" % i for i in range(40))
    assert len(contents(rows_of(lines, "log.txt", tmp_path, kind="text"))) > 1
    table = b"\n".join(b"On day %d the ship sailed and sailed,%s" % (i, b"fog" if i % 3 else b"sun") for i in range(40))
    assert rows_of(table, "log.txt", tmp_path, kind="labels").frame["label"].n_unique() == 2


def test_long_texts_without_labels_are_plain_texts_and_short_ones_are_asked_about(tmp_path):
    rows = rows_of(csv_of(["id", "body"], [(str(i), text) for i, text in enumerate(PARAGRAPHS)]), "a.csv", tmp_path)
    assert contents(rows) == PARAGRAPHS
    short = csv_of(["id", "body"], [(str(i), f"Word {i} and another") for i in range(30)])
    with pytest.raises(InvalidError, match="label"):
        rows_of(short, "a.csv", tmp_path)
    assert len(contents(rows_of(short, "a.csv", tmp_path, kind="text"))) == 30


def test_labels_of_a_table_are_left_when_a_person_wants_its_texts(tmp_path):
    table = csv_of(["text", "label"], [(text, "sea" if i % 2 else "land") for i, text in enumerate(PARAGRAPHS)])
    assert rows_of(table, "a.csv", tmp_path).kind == "labels"
    assert contents(rows_of(table, "a.csv", tmp_path, kind="text", text=("text",), label=("label",))) == PARAGRAPHS


NOTES = {f"notes/{number}/day {number}.md": text.encode() for number, text in enumerate(PARAGRAPHS)}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (NOTES, 24),
        (NOTES | {"README.md": b"# About", "notes/test drive.txt": b"We drove on.", "notes/empty.md": b""}, 25),
        ({"emma.txt": BOOK, "odyssey.txt": BOOK}, 24),  # names that could be labels
    ],
)
def test_archive_of_plain_texts_has_a_document_in_each_file(files, count, tmp_path):
    documents = contents(rows_of(archive(**files), "notes.zip", tmp_path))
    assert len(documents) == count and not any("About" in document for document in documents)
    assert set(" ".join(documents).split()) == set(
        b" ".join(content for name, content in files.items() if name != "README.md").decode().split()
    )


def test_person_decides_whether_an_archive_holds_documents_or_labels(tmp_path):
    by_label = archive(**{f"{label}/{i}.txt": PARAGRAPHS[i].encode() for i in range(6) for label in ("sea", "land")})
    assert rows_of(by_label, "a.zip", tmp_path).kind == "labels"
    assert len(contents(rows_of(by_label, "a.zip", tmp_path, kind="text"))) == 12
    lines = archive(**{f"{label}.txt": b"Cold fish\nA long wait\n" for label in ("bad", "poor")})
    assert rows_of(lines, "a.zip", tmp_path).kind == "labels"
    with pytest.raises(InvalidError, match="or documents"):
        rows_of(archive(**NOTES), "a.zip", tmp_path, kind="labels")
    with pytest.raises(InvalidError, match="looks like a PDF"):
        rows_of(archive(**NOTES | {"a.txt": b"%PDF-1.7"}), "a.zip", tmp_path)


def test_empty_documents_are_left_out_and_counted(tmp_path):
    rows = rows_of(csv_of(["body"], [(text,) for text in [*PARAGRAPHS, "  "]]), "a.csv", tmp_path, kind="text")
    assert len(contents(rows)) == len(PARAGRAPHS) and rows.left_out == {"no_text": 1}


BOOK_ROWS = [*((text, "train") for text in PARAGRAPHS), (PARAGRAPHS[0], "test"), ("Write to ann@example.org", "train")]


@pytest.fixture
def book(member: Any, file: Callable[..., Path]) -> Version:
    return store_dataset(member, "book", file(csv_of(["body", "split"], BOOK_ROWS), "book.csv"))


def test_plain_texts_are_checked(book: Version) -> None:
    findings = {finding.code: finding for finding in book.findings.all()}
    assert findings["split_leakage"].severity == "error" and findings["personal_data"].count == 1
    assert findings.keys() <= {"split_leakage", "personal_data", "mixed_language", "exact_duplicate"}
    assert book.kind == "text" and book.task_type == "causal_lm"


def test_faults_of_plain_texts_are_fixed_in_a_new_version(member: Any, book: Version) -> None:
    made = changes.make_version(user=member, version=book, change={"did": "fix", "code": "personal_data"})
    assert isinstance(made, Version) and made.kind == "text"
    assert json.loads(pl.read_parquet(made.path)["text"][-1]) == from_text("Write to [e-mail]")
    apart = changes.make_version(user=member, version=made, change={"did": "fix", "code": "split_leakage"})
    assert isinstance(apart, Version) and apart.rows == made.rows - 1


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_download_that_is_uploaded_again_is_the_same_version(
    api: Any, member: Any, file: Callable[..., Path], file_format: str
) -> None:
    rows = csv_of(["body", "split"], [("=1+1 is how a formula begins. " + PARAGRAPHS[0], "train"), *BOOK_ROWS])
    version = store_dataset(member, "book", file(rows, "formula.csv"))
    answer = api(member).get(f"/api/datasets/book/download?format={file_format}")
    content = b"".join(answer.streaming_content)
    again = services.create_version(user=member, name="again", file=file(content), filename=f"a.{file_format}")
    assert again.kind == "text" and again.hash == version.hash


def test_plain_texts_are_shown_searched_and_edited(client: Any, member: Any, book: Version) -> None:
    client.force_login(member)
    page = client.get("/datasets/book/rows/?edit=4&q=day 3 ").content.decode()
    assert page.count('class="turn"') == 1 and "Conversation" not in page
    stored = pl.read_parquet(book.path)["text"][1]
    client.post("/datasets/book/edit/", {"version": 1, "row": 2, "text": stored, "turn_0": "A new day."})
    made = Version.objects.get(dataset__name="book", number=2)
    assert json.loads(pl.read_parquet(made.path)["text"][1]) == from_text("A new day.")
    assert "continue such texts" in client.get("/datasets/book/").content.decode()


@pytest.mark.parametrize("text", ["[]", json.dumps([{"role": "text", "content": "  "}]), "A new day."])
def test_edit_that_leaves_no_text_is_refused(member: Any, book: Version, text: str) -> None:
    with pytest.raises(InvalidError):
        changes.make_version(user=member, version=book, change={"did": "edit", "rows": {"1": {"text": text}}})


def test_text_file_is_uploaded_corrected_and_stored(client: Any, member: Any) -> None:
    client.force_login(member)
    sent = client.post("/datasets/new/", {"file": SimpleUploadedFile("book.txt", BOOK)})
    preview = client.get(sent.url)
    assert "plain text, read as" in preview.content.decode()
    corrected = client.post(sent.url, {"again": "1", "kind": "labels", "name": "sea"}).content.decode()
    assert "plain text, read as" not in corrected
    client.post(sent.url, {"kind": "text", "name": "sea"})
    version = Version.objects.get(dataset__name="sea")
    assert version.kind == "text" and version.rows == len(split_documents(BOOK.decode()))


def test_windows_are_counted_by_the_tokens_that_are_known() -> None:
    version = Version(kind="text", tokens={SAMPLE_MODEL: {"10": 1, "100": 1}})
    assert windows_per_text(version, "another", 10) == (1 + 11) / 2
