"""Each thing that people do is one entry: who, from where, what, on which object, with which result, in which request."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from audit.models import Entry
from testing.belongings import belongings
from training.models import Status, Task

ROWS = b"text,label\n" + b"".join(f"text number {n},{'good' if n % 2 else 'bad'}\n".encode() for n in range(40))
LOGIN = {"username": "member", "password": "correct-horse-9"}
Do = Callable[[Any, Any, dict[str, Any]], Any]

DONE: dict[str, tuple[Do, str, str, str]] = {  # by API client, page or both: action, object, result
    "sign in": (lambda a, p, x: APIClient().post("/api/login", LOGIN, format="json"), "user.login", "", "ok"),
    "failed sign-in": (
        lambda a, p, x: APIClient().post("/api/login", {**LOGIN, "password": "no"}, format="json"),
        "user.login",
        "",
        "refused",
    ),
    "sign out": (lambda a, p, x: p.post("/logout/"), "user.logout", "", "ok"),
    "upload": (
        lambda a, p, x: a.post(
            "/api/datasets", {"name": "fresh", "file": SimpleUploadedFile("a.csv", ROWS)}, format="multipart"
        ),
        "dataset.store",
        "fresh@1",
        "ok",
    ),
    "submit": (
        lambda a, p, x: a.post(
            "/api/train", {"experiment_name": "run", "data": {"dataset_name": "owned"}}, format="json"
        ),
        "task.submit",
        "run (PENDING)",
        "ok",
    ),
    "cancel": (lambda a, p, x: a.post(f"/api/task/{x['waiting']}/cancel"), "task.cancel", "waiting (CANCELLED)", "ok"),
    "resume": (lambda a, p, x: p.post(f"/runs/{x['task']}/resume/"), "task.resume", "owned (PENDING)", "ok"),
    "delete": (lambda a, p, x: a.delete("/api/experiments/owned"), "experiment.delete", "owned", "ok"),
    "delete data": (lambda a, p, x: p.post("/datasets/unused/delete/"), "dataset.remove", "unused", "ok"),
    "download": (
        lambda a, p, x: a.get("/api/experiments/owned/files/config.yaml"),
        "experiment.download",
        "owned",
        "ok",
    ),
    "download all": (lambda a, p, x: p.get("/experiments/owned/all.zip"), "experiment.download", "owned", "ok"),
    "share": (
        lambda a, p, x: a.post("/api/sharing/dataset/owned", {"to": "viewer", "access": "view"}, format="json"),
        "share",
        "owned",
        "ok",
    ),
    "give away": (
        lambda a, p, x: p.post("/sharing/experiment/owned/", {"to": "stranger", "access": "owner", "confirmed": "1"}),
        "owner.change",
        "owned",
        "ok",
    ),
    "describe a model": (
        lambda a, p, x: a.patch("/api/models/owned", {"card": "x"}, format="json"),
        "model.describe",
        "owned@1",
        "ok",
    ),
    "name a version": (
        lambda a, p, x: p.post("/models/owned@1/alias/", {"alias": "champion"}),
        "model.alias",
        "owned@1",
        "ok",
    ),
    "export a model": (
        lambda a, p, x: a.post("/api/models/owned/exports", {"format": "safetensors"}, format="json"),
        "model.export",
        "owned@1",
        "ok",
    ),
    "download a model": (lambda a, p, x: a.get("/api/models/owned/archive"), "model.download", "owned@1", "ok"),
    "share a model": (
        lambda a, p, x: a.post("/api/sharing/model/owned", {"to": "viewer", "access": "view"}, format="json"),
        "share",
        "owned",
        "ok",
    ),
    "delete a model": (lambda a, p, x: p.post("/models/owned/delete/"), "model.remove", "owned", "ok"),
    "token": (
        lambda a, p, x: p.post("/account/tokens/", {"name": "t", "scopes": ["read"], "days": 1}),
        "token.create",
        "member: t",
        "ok",
    ),
    "what the role forbids": (lambda a, p, x: a.get("/api/audit/logs"), "request.refused", "", "refused"),
    "what the role forbids on a page": (lambda a, p, x: p.get("/people/"), "request.refused", "", "refused"),
}


@pytest.fixture
def things(member: User, viewer: User, stranger: User) -> dict[str, Any]:
    mine, waiting, unused = (belongings(member, name) for name in ("owned", "waiting", "unused"))
    Task.objects.filter(pk=waiting.task.pk).update(status=Status.PENDING)
    unused.experiment.delete()
    return {"task": mine.task.pk, "waiting": waiting.task.pk}


@pytest.mark.parametrize("what", DONE)
def test_action_is_one_entry_with_its_request(
    api: Callable[..., Any], member: User, things: dict[str, Any], what: str
) -> None:
    do, action, obj, result = DONE[what]
    page = Client()
    page.force_login(member)
    before = set(Entry.objects.values_list("pk", flat=True))
    answer = do(api(member), page, things)
    assert answer.status_code < 500
    entry = Entry.objects.exclude(pk__in=before).get()
    assert (entry.action, entry.object_id, entry.result) == (action, obj, result)
    assert (entry.username, entry.address) == ("member", "127.0.0.1")
    assert entry.request_id == answer["X-Request-ID"] and len(entry.request_id) == 36


def test_result_can_be_filtered(client: Any, api: Callable[..., Any], admin: User, member: User) -> None:
    APIClient().post("/api/login", {**LOGIN, "password": "no"}, format="json")
    APIClient().post("/api/login", LOGIN, format="json")
    entries = api(admin).get("/api/audit/logs?result=refused").json()["results"]
    assert [(e["action"], e["result"]) for e in entries] == [("user.login", "refused")]
    client.force_login(admin)
    assert [e.result for e in client.get("/audit/?result=refused").context["page"]] == ["refused"]
