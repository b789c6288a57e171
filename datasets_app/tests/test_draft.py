"""Changes to rows are collected as a draft and become one version."""

import polars as pl
import pytest

from datasets_app.models import DataTask, DraftEdit, Version
from datasets_app.review import draft
from datasets_app.versions import changes
from testing.datasets import store_dataset
from web.errors import ConflictError, InvalidError

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(member, file):
    lines = [f"number {i} of the rows says {i * i},{'good' if i % 2 else 'bad'}" for i in range(1, 41)]
    return store_dataset(member, "moods", file("\n".join(["text,label", *lines]), "moods.csv"))


def send(client, row, back="", **cells):
    values = {"version": 1, "row": row, "draft": 1, "query": back, **cells}
    return client.post("/datasets/moods/edit/", values, follow=True)


@pytest.mark.medium
def test_edits_of_several_rows_become_one_version(client, member, version):
    client.force_login(member)
    text = "number 3 of the rows says 9"
    answer = send(client, 3, back="version=1&q=rows&label=good&page=1", text=text, label="bad")
    assert answer.redirect_chain[0][0].endswith("?version=1&q=rows&label=good&page=1#row-3")
    assert (
        "Row 3 is in your draft." in answer.content.decode() and "changes 1 row of version 1" in answer.content.decode()
    )
    send(client, 4, drop=1)
    send(client, 5, text="a new text", label="good")
    assert Version.objects.count() == 1
    page = client.get("/datasets/moods/draft/?version=1").content.decode()
    assert "3 rows of version 1 are changed" in page and "a new text" in page and "removed" in page
    answer = client.post("/datasets/moods/draft/", {"version": 1, "save": 1}, follow=True)
    assert "Version 2 was made" in answer.content.decode() and not DraftEdit.objects.exists()
    frame = pl.read_parquet(Version.objects.get(number=2).path).select("row", "text", "label")
    rows = {row: cells for row, *cells in frame.rows()}
    assert rows[3] == [text, "bad"] and 4 not in rows and rows[5] == ["a new text", "good"]


@pytest.mark.medium
def test_row_is_taken_out_and_the_draft_discarded(client, member, version):
    client.force_login(member)
    for row in (1, 2, 3):
        send(client, row, text=f"text {row}", label="bad")
    client.post("/datasets/moods/draft/", {"version": 1, "remove": 2})
    assert [line.row for line in draft.list_rows(member, version)] == [1, 3]
    client.post("/datasets/moods/draft/", {"version": 1, "discard": 1})
    answer = client.post("/datasets/moods/draft/", {"version": 1, "save": 1}, follow=True)
    assert "The draft is empty" in answer.content.decode() and Version.objects.count() == 1


def test_second_edit_replaces_the_first_and_the_original_takes_the_row_out(member, version):
    draft.put(user=member, version=version, row=3, cells={"text": "one", "label": "bad"})
    draft.put(user=member, version=version, row=3, cells={"text": "two", "label": "bad"})
    assert [line.new_text for line in draft.list_rows(member, version)] == ["two"]
    original = {"text": "number 3 of the rows says 9", "label": "good"}
    assert draft.put(user=member, version=version, row=3, cells=original) is None
    assert draft.count(member, version) == 0


@pytest.mark.parametrize(
    ("row", "cells"), [(99, None), (99, {"text": "a", "label": "good"}), (3, {"text": " ", "label": "good"})]
)
def test_invalid_edit_is_refused_at_once(member, version, row, cells):
    with pytest.raises(InvalidError):
        draft.put(user=member, version=version, row=row, cells=cells)
    assert draft.count(member, version) == 0


def test_refused_edit_is_told_where_it_was_made(client, member, version):
    client.force_login(member)
    answer = send(client, 3, back="q=rows", text="", label="good")
    assert answer.redirect_chain[0][0].endswith("?version=1&q=rows&edit=3#edit")
    assert "The text of a row must have 1 to" in answer.content.decode()


def test_draft_has_a_limit(member, version, monkeypatch):
    monkeypatch.setattr(draft, "MOST_EDITS", 2)
    for row in (1, 2):
        draft.put(user=member, version=version, row=row, cells=None)
    draft.put(user=member, version=version, row=2, cells={"text": "a", "label": "good"})
    with pytest.raises(InvalidError, match="2 changes at most"):
        draft.put(user=member, version=version, row=3, cells=None)


def test_everybody_has_a_draft_of_their_own(client, admin, member, version):
    draft.put(user=member, version=version, row=1, cells=None)
    client.force_login(admin)
    assert "The draft is empty" in client.get("/datasets/moods/draft/?version=1").content.decode()
    draft.discard(user=admin, version=version)
    assert draft.count(member, version) == 1


def test_draft_stays_when_its_version_cannot_be_made(member, version):
    for row in range(1, 41, 2):  # all rows of one label
        draft.put(user=member, version=version, row=row, cells=None)
    with pytest.raises(InvalidError):
        draft.save(user=member, version=version)
    assert draft.count(member, version) == 20 and Version.objects.count() == 1


def test_draft_of_a_large_version_stays_until_its_task_has_made_the_version(member, version, monkeypatch):
    monkeypatch.setattr(changes, "AT_ONCE", 0)
    draft.put(user=member, version=version, row=1, cells=None)
    task = draft.save(user=member, version=version)
    assert isinstance(task, DataTask)
    assert draft.count(member, version) == 1
    draft.put(user=member, version=version, row=2, cells=None)  # not part of the task
    changes.change_for_task(task, lambda *_, **__: None)()
    assert Version.objects.get(number=2).rows == 39
    assert [line.row for line in draft.list_rows(member, version)] == [2]


@pytest.mark.medium
def test_edit_without_the_draft_makes_a_version_at_once(client, member, version):
    client.force_login(member)
    answer = client.post(
        "/datasets/moods/edit/", {"version": 1, "row": 3, "text": "a new text", "label": "bad"}, follow=True
    )
    assert "Version 2 was made" in answer.content.decode()


def test_nothing_to_save_is_told_as_a_conflict(member, version):
    with pytest.raises(ConflictError):
        draft.save(user=member, version=version)
