"""The datasets API: responses as specified, errors that name the field, 404 to strangers."""

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from datasets_app.models import Dataset


def upload(client, content, name="moods", filename="moods.csv", **fields):
    data = {"name": name, "file": SimpleUploadedFile(filename, content), **fields}
    return client.post("/api/datasets", data, format="multipart")


@pytest.mark.medium
def test_upload_answers_what_was_stored(api, member, good_csv):
    answer = upload(api(member), good_csv, text_column="comment", label_column="mood")
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("report_url").endswith("/datasets/moods/")
    read = body.pop("read")
    assert body == {"name": "moods", "version": 1, "rows": 400, "kind": "labels", "labels": {"good": 200, "bad": 200}}
    assert read["columns"] == {"text": "comment", "text_pair": None, "label": "mood", "split": None}
    assert read["rows_read"] == 400 and read["rows_left_out"] == {} and read["broken_lines"] == 0


def test_report_has_the_shape_of_the_spec(api, member, stored):
    body = api(member).get("/api/datasets/moods").json()
    assert set(body) == {"name", "owner", "tags", "note", "versions", "report"} and body["owner"] == "member"
    assert set(body["versions"][0]) == {"version", "hash", "rows", "labels", "splits", "parent", "note", "kind", "read"}
    assert body["report"]["version"] == 1
    for finding in body["report"]["findings"]:
        assert set(finding) == {"code", "severity", "count", "message", "examples"}


def test_list_is_paginated(api, member, stored):
    body = api(member).get("/api/datasets").json()
    assert body["next"] is None and len(body["results"]) == 1
    assert body["results"][0]["name"] == "moods" and body["results"][0]["versions"][0]["rows"] == 400


@pytest.mark.parametrize("method", ["get", "delete"])
def test_dataset_is_404_to_a_stranger(api, stranger, stored, method):
    assert getattr(api(stranger), method)("/api/datasets/moods").status_code == 404
    assert api(stranger).get("/api/datasets").json()["results"] == []
    assert Dataset.objects.exists()


def test_anonymous_is_401_and_viewer_403(client, api, viewer, good_csv):
    assert client.get("/api/datasets").status_code == 401
    assert upload(api(viewer), good_csv).status_code == 403


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"content": b""}, "file"),
        ({"content": b"\x89PNG" + bytes(900)}, "file"),
        ({"content": b"text,label\na,x\nb,x\n"}, "label_column"),
        ({"content": b"text,label\na,x\nb,y\n", "label_column": "mood"}, "label_column"),
        ({"content": b"text,label\na,x\nb,y\n", "text_column": "words"}, "text_column"),
        ({"content": b"text,label\na,x\nb,y\n", "name": "../../etc"}, "name"),
        ({"content": b"text,label\na,x\nb,y\n", "encoding": "rot13"}, "encoding"),
    ],
)
def test_bad_upload_names_the_field_and_stores_nothing(api, member, fields, field):
    answer = upload(api(member), **fields)
    assert answer.status_code == 400
    assert [e["field"] for e in answer.json()["errors"]] == [field]
    assert not Dataset.objects.exists()


def test_missing_file_and_name_are_named(api, member):
    answer = api(member).post("/api/datasets", {}, format="multipart")
    assert [e["field"] for e in answer.json()["errors"]] == ["name"]
    answer = api(member).post("/api/datasets", {"name": "nothing"}, format="multipart")
    assert [e["field"] for e in answer.json()["errors"]] == ["file"]


@pytest.mark.parametrize("size", [3000, 3_000_000])
def test_file_over_the_limit_is_413(api, member, settings, size):
    settings.UPLOAD_LIMIT = 1000
    answer = upload(api(member), b"text,label\n" + b"a,b\n" * (size // 4))
    assert answer.status_code == 413
    assert json.loads(answer.content)["errors"][0]["field"] == "file"


def test_owner_deletes(api, member, stored):
    assert api(member).delete("/api/datasets/moods").status_code == 204
    assert api(member).get("/api/datasets/moods").status_code == 404


@pytest.mark.medium
def test_upload_takes_what_a_person_says_about_the_file(api, member):
    rows = "".join(f"title {i};body {i};{'ab'[i % 2]};{'PQ'[i % 2]}\n" for i in range(8))
    fields = {"text_columns": ["1", "2"], "label_column": "3", "split_column": "4", "header": "false", "delimiter": ";"}
    fields |= {"split_values": json.dumps({"P": "train", "Q": "eval"}), "quote": "'", "skip_lines": "1"}
    answer = upload(api(member), ("a line before\n" + rows).encode(), **fields)
    assert answer.status_code == 201
    read = answer.json()["read"]
    assert read["columns"] == {"text": [1, 2], "text_pair": None, "label": 3, "split": 4}
    assert (read["header"], read["quote"], read["delimiter"], read["rows_read"]) == (False, "'", ";", 8)
    listed = api(member).get("/api/datasets/moods/rows").json()["results"]
    assert listed[1]["text"] == "title 1\nbody 1" and listed[1]["split"] == "eval"


@pytest.mark.medium
def test_empty_quote_keeps_the_marks(api, member):
    content = b'text,label\n"one",a\n"two",b\n"three",a\n"four",b\n'
    upload(api(member), content, quote="")
    assert api(member).get("/api/datasets/moods/rows").json()["results"][0]["text"] == '"one"'
    upload(api(member), content, name="plain")
    assert api(member).get("/api/datasets/plain/rows").json()["results"][0]["text"] == "one"


@pytest.mark.medium
def test_several_files_are_splits(api, member):
    files = [
        SimpleUploadedFile("train.csv", b"text,label\n" + b"one,a\ntwo,b\n" * 9),
        SimpleUploadedFile("test.csv", b"text,label\nthree,a\n"),
    ]
    answer = api(member).post("/api/datasets", {"name": "splits", "file": files}, format="multipart")
    assert answer.status_code == 201
    assert api(member).get("/api/datasets/splits").json()["versions"][0]["splits"] == {"train": 18, "test": 1}


def test_version_says_what_its_labels_are_and_cannot_be_trained_on_otherwise(api, member):
    content = json.dumps([{"text": f"text {i}", "label": ["a", "b"][: i % 2 + 1]} for i in range(8)]).encode()
    body = upload(api(member), content, filename="a.json").json()
    assert body["kind"] == "multi_label" and body["labels"] == {"a": 8, "b": 4}
    config = {"experiment_name": "run", "task": "sequence_classification", "data": {"dataset_name": "moods"}}
    answer = api(member).post("/api/train", config, format="json")
    assert answer.status_code == 400 and "any number of labels per text" in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "task"
