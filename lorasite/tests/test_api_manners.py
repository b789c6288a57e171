"""Behaviour shared by all operations of the API: problems, versions, ETags, cursors, idempotency keys."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from rest_framework.test import APIClient

from accounts import sharing
from accounts.models import RepeatKey, User
from accounts.services import make_token
from datasets_app.models import Dataset, Version
from experiments.models import Experiment
from testing.belongings import belongings
from training.models import Status, Task

SHAPE = {"type", "title", "status", "code", "detail", "errors", "request_id"}


def is_problem(answer: Any, status: int, code: str) -> bool:
    body = answer.json()
    has_shape = answer["Content-Type"] == "application/problem+json" and set(body) >= SHAPE
    return has_shape and (answer.status_code, body["status"], body["code"]) == (status, status, code)


FAILURES: dict[str, tuple[Callable[[Any], Any], int, str]] = {
    "no such address": (lambda c: c.get("/api/nowhere"), 404, "not_found"),
    "no such thing": (lambda c: c.get("/api/datasets/nowhere"), 404, "not_found"),
    "wrong method": (lambda c: c.put("/api/datasets"), 405, "method_not_allowed"),
    "wrong type": (lambda c: c.post("/api/predict", b"x", content_type="text/plain"), 415, "unsupported_media_type"),
    "no JSON wanted": (lambda c: c.get("/api/datasets", headers={"Accept": "text/csv"}), 406, "not_acceptable"),
    "malformed JSON": (lambda c: c.post("/api/predict", b"{", content_type="application/json"), 400, "parse_error"),
    "too deep": (lambda c: c.post("/api/predict", b"[" * 200_000, content_type="application/json"), 400, "unreadable"),
    "half a character": (
        lambda c: c.post("/api/login", b'{"username": "\\ud800", "password": "x"}', content_type="application/json"),
        400,
        "invalid",
    ),
    "too large": (lambda c: c.post("/api/predict", {"text": "x" * 5_000_000}, format="json"), 413, "too_large"),
    "too large to be read": (
        lambda c: c.generic("POST", "/api/predict", b"x" * 5_000_000, content_type="application/json"),
        413,
        "too_large",
    ),
    "NUL in the address": (lambda c: c.get("/api/datasets/a%00b"), 400, "unreadable"),
    "NUL in the query": (lambda c: c.get("/api/audit/logs?user=a%00b"), 400, "unreadable"),
    "unknown version": (lambda c: c.get("/api/datasets", headers={"X-API-Version": "99"}), 400, "unknown_version"),
    "cursor of somebody else": (lambda c: c.get("/api/datasets?cursor=abc"), 404, "not_found"),
    "limit of nothing": (lambda c: c.get("/api/datasets?limit=0"), 400, "invalid"),
    "unknown field": (lambda c: c.post("/api/predict", {"text": "x", "modle": "y"}, format="json"), 400, "invalid"),
    "nobody signed in": (lambda c: APIClient().get("/api/datasets"), 401, "not_authenticated"),
    "key too long": (
        lambda c: c.post("/api/train", {}, format="json", headers={"Idempotency-Key": "k" * 201}),
        400,
        "invalid",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_has_the_same_shape(api: Callable[..., Any], admin: User, failure: str) -> None:
    send, status, code = FAILURES[failure]
    answer = send(api(admin))
    assert is_problem(answer, status, code), (answer.status_code, answer.content[:400])
    assert answer["X-Request-ID"] == answer.json()["request_id"] and answer["X-API-Version"] == "1"


def test_field_at_fault_is_named(api: Callable[..., Any], member: User) -> None:
    body = {"lora": {"r": 0}, "training": {"learning_rate": 9}, "nonsense": 1}
    errors = api(member).post("/api/train", body, format="json").json()["errors"]
    assert {e["field"] for e in errors} == {"lora.r", "training.learning_rate", "nonsense"}
    assert all(e["message"] for e in errors)


def test_read_answers_304_while_nothing_changes(api: Callable[..., Any], member: User) -> None:
    task, client = belongings(member).task, api(member)
    for path in ("/api/datasets", "/api/datasets/mine", "/api/experiments/mine", f"/api/task/{task.pk}"):
        tag = client.get(path)["ETag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"") and again["ETag"] == tag, path
    tag = client.get(f"/api/task/{task.pk}")["ETag"]
    Task.objects.update(step=3)
    assert client.get(f"/api/task/{task.pk}", headers={"If-None-Match": tag}).status_code == 200
    tag = client.get("/api/datasets/mine")["ETag"]
    assert APIClient().get("/api/datasets/mine", headers={"If-None-Match": tag}).status_code == 401


@pytest.mark.parametrize("sort", ["-accuracy", "accuracy", "name", "-created", "status"])
def test_cursor_walks_every_row_once_in_order_empty_values_last(
    api: Callable[..., Any], member: User, sort: str
) -> None:
    for n in range(9):
        made = belongings(member, f"run-{n}").experiment
        Experiment.objects.filter(pk=made.pk).update(accuracy=None if n % 3 == 0 else round(0.5 + n % 2 / 10, 1))
    client, rows, link = api(member), [], f"/api/experiments/mine?limit=2&sort={sort}"
    while link:
        page = client.get(link).json()
        assert set(page) == {"next", "results"} and len(page["results"]) <= 2
        rows += page["results"]
        link = page["next"]
    whole = client.get(f"/api/experiments/mine?limit=100&sort={sort}").json()["results"]
    assert [row["experiment"] for row in rows] == [row["experiment"] for row in whole] and len(rows) == 9
    if "accuracy" in sort:
        assert [row["accuracy"] for row in rows][-3:] == [None] * 3


def test_new_rows_do_not_shift_later_pages(api: Callable[..., Any], member: User) -> None:
    for n in range(4):
        belongings(member, f"b{n}")
    client = api(member)
    first = client.get("/api/datasets?limit=2").json()
    belongings(member, "a-new-one")
    second = client.get(first["next"]).json()
    assert [d["name"] for d in first["results"] + second["results"]] == ["b0", "b1", "b2", "b3"]


# One thing is made, however often and however fast the same request is sent.


def csv(rows: int = 40) -> SimpleUploadedFile:
    lines = [f"text number {n} is {'good' if n % 2 else 'bad'},{'good' if n % 2 else 'bad'}" for n in range(rows)]
    return SimpleUploadedFile("a.csv", ("text,label\n" + "\n".join(lines)).encode())


def upload(client: Any, key: str, name: str = "mine", rows: int = 40) -> Any:
    sent = {"name": name, "file": csv(rows), "text_column": "text", "label_column": "label"}
    return client.post("/api/datasets", sent, format="multipart", headers={"Idempotency-Key": key})


@pytest.mark.slow
def test_upload_sent_twice_with_a_key_is_one_version(api: Callable[..., Any], member: User) -> None:
    client = api(member)
    first, again = upload(client, "k"), upload(client, "k")
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert Version.objects.count() == 1
    assert upload(client, "l").json()["version"] == 1  # the same rows are no new version
    assert upload(client, "m", rows=42).json()["version"] == 2


def test_key_of_another_request_is_refused(api: Callable[..., Any], member: User) -> None:
    client = api(member)
    upload(client, "k")
    for other in (upload(client, "k", name="other"), upload(client, "k", rows=41)):
        assert is_problem(other, 409, "idempotency_key_used")
    train = client.post("/api/train", {}, format="json", headers={"Idempotency-Key": "k"})
    assert is_problem(train, 409, "idempotency_key_used")
    assert Dataset.objects.count() == Version.objects.count() == 1


def test_key_of_a_deleted_object_creates_no_second_one(api: Callable[..., Any], member: User) -> None:
    client = api(member)
    upload(client, "k")
    assert client.delete("/api/datasets/mine").status_code == 204
    assert is_problem(upload(client, "k"), 409, "idempotency_key_used")


def register(client: Any) -> Any:
    body = {"experiment": "small", "name": "moods"}
    return client.post("/api/models", body, format="json", headers={"Idempotency-Key": "k"})


def submit(client: Any) -> Any:
    body = {"experiment_name": "given", "data": {"dataset_name": "tweets"}}
    return client.post("/api/train", body, format="json", headers={"Idempotency-Key": "k"})


@pytest.mark.medium
@pytest.mark.parametrize("make", [upload, submit, register])
def test_key_reveals_nothing_about_an_object_that_was_handed_over_since(
    api: Callable[..., Any], member: User, stranger: User, learnt: Experiment, make: Callable[..., Any]
) -> None:
    client = api(member)
    repeat = (lambda: make(client, "k")) if make is upload else lambda: make(client)
    kind, name = {upload: ("dataset", "mine"), submit: ("experiment", "given"), register: ("model", "moods")}[make]
    first = repeat()
    assert first.status_code in (201, 202) and repeat().json() == first.json()
    given = {"to": stranger.username, "access": "owner"}
    assert client.post(f"/api/sharing/{kind}/{name}", given, format="json").status_code == 200
    assert client.get(f"/api/sharing/{kind}/{name}").status_code == 404
    answer = repeat()
    assert is_problem(answer, 409, "idempotency_key_used") and "made" not in answer.json()
    sharing.set_access(user=stranger, obj=sharing.shared_object(stranger, kind, name), to=member, level="view")
    assert repeat().status_code == first.status_code  # seen again, it is told again


def test_admin_without_the_scope_sees_no_more_than_a_member(admin: User, stranger: User) -> None:
    _token, secret = make_token(user=admin, name="script", scopes=["read", "write"], days=1)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert upload(client, "k").status_code == 201
    sharing.set_access(user=admin, obj=Dataset.objects.get(), to=stranger, level="owner")
    assert is_problem(upload(client, "k"), 409, "idempotency_key_used")


def test_refused_request_leaves_its_key_free(api: Callable[..., Any], member: User) -> None:
    client = api(member)
    assert upload(client, "k", name="../x").status_code == 400 and not RepeatKey.objects.exists()
    assert upload(client, "k").status_code == 201


@pytest.mark.medium
def test_keys_of_two_people_are_two_keys(api: Callable[..., Any], member: User, stranger: User) -> None:
    assert upload(api(member), "k").status_code == 201
    assert upload(api(stranger), "k", name="theirs").status_code == 201


def test_same_submit_six_times_at_once_is_one_run(
    api: Callable[..., Any], transactional_db: None, tweets_csv: Path
) -> None:
    from testing.datasets import store_dataset
    from testing.people import make_user

    member = make_user("member", "member")
    store_dataset(member, "tweets", tweets_csv)
    body = {"experiment_name": "once", "data": {"dataset_name": "tweets"}}

    def send(_n: int) -> Any:
        answer = api(member).post("/api/train", body, format="json", headers={"Idempotency-Key": "k"})
        connection.close()
        return answer.status_code, answer.json()["task_id"]

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(send, range(6)))
    assert len(answers) == 1 and Task.objects.count() == 1
    assert Task.objects.get().status == Status.PENDING


# Several at once.


def test_many_runs_are_cancelled_and_each_result_is_reported(
    api: Callable[..., Any], member: User, stranger: User
) -> None:
    waiting, ended, theirs = (
        belongings(member, "a").task,
        belongings(member, "b").task,
        belongings(stranger, "c").task,
    )
    Task.objects.filter(pk=waiting.pk).update(status=Status.PENDING)
    body = {"task_ids": [str(task.pk) for task in (ended, theirs, waiting)]}
    answer = api(member).post("/api/tasks/cancel", body, format="json").json()
    assert [line["code"] for line in answer] == ["task_wrong_state", "not_found", ""]
    assert set(Task.objects.values_list("status", flat=True)) == {Status.CANCELLED}
    assert [t["experiment"] for t in api(member).get("/api/tasks?owner=me").json()["results"]] == ["b", "a"]
    assert api(member).get("/api/tasks?status=PENDING").json()["results"] == []
    assert api(member).get("/api/tasks?status=owner__password").status_code == 400


def test_many_experiments_are_deleted(api: Callable[..., Any], member: User, stranger: User) -> None:
    for name in ("a", "b"):
        belongings(member, name)
    belongings(stranger, "c")
    answer = api(member).post("/api/experiments/delete", {"names": ["a", "c", "b"]}, format="json").json()
    assert [line["code"] for line in answer] == ["", "not_found", ""]
    assert list(Experiment.objects.values_list("name", flat=True)) == ["c"]
