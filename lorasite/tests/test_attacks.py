"""Attacks: names that are paths, URLs of internal services, pickles in the queue, floods, leaked secrets."""

import json
import logging
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from accounts.services import make_token
from audit.models import Entry
from datasets_app.models import Dataset, Finding, Version
from experiments.models import Experiment
from testing.belongings import belongings
from training.models import LogLine, Task
from work import queue

# S2: filters that reach into related tables.


@pytest.mark.parametrize("path", ["/api/experiments/mine", "/api/datasets", "/api/tasks", "/api/audit/logs"])
@pytest.mark.parametrize("query", ["owner__password__startswith=p", "ordering=owner__password", "owner__password=x"])
def test_unlisted_filter_changes_nothing(api: Callable[..., Any], admin: User, path: str, query: str) -> None:
    belongings(admin)
    client = api(admin)
    plain, asked = client.get(path), client.get(f"{path}?{query}")
    assert asked.status_code in (200, 400)
    if asked.status_code == 200:
        assert asked.json()["results"] == plain.json()["results"]


@pytest.mark.parametrize("sort", ["owner__password", "-owner__password", "config", "owner__username", "pk"])
def test_order_by_what_is_not_listed_is_refused(api: Callable[..., Any], member: User, sort: str) -> None:
    assert api(member).get(f"/api/experiments/mine?sort={sort}").status_code == 400


# S3: names and paths.

NAMES = [
    "../x", "..\\x", "%2e%2e%2fx", "%252e%252e%252fx", "x\0y", "/etc/passwd", "file:///etc/passwd", "a\u2215b", "a\uff0fb",
    "..", ".", ".hidden", "x" * 300, "C:\\x", "\\\\host\\share", "con\r\nx", "a/../../b", "~root",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_name_that_could_be_a_path_is_refused_everywhere(
    api: Callable[..., Any], member: User, data_root: Path, name: str
) -> None:
    client, before = api(member), set(data_root.rglob("*"))
    file = SimpleUploadedFile("a.csv", b"text,label\n" + b"a text here,good\nanother one,bad\n" * 20)
    assert client.post("/api/datasets", {"name": name, "file": file}, format="multipart").status_code == 400
    for body in (
        {"experiment_name": name, "data": {"dataset_name": "x"}},
        {"model": {"name": name}, "data": {"dataset_name": "x"}},
        {"experiment_name": "x", "data": {"dataset_name": name}},
    ):
        assert client.post("/api/train", body, format="json").status_code == 400, body
    assert not Dataset.objects.exists() and not Experiment.objects.exists()
    assert {path for path in data_root.rglob("*") if path.is_file()} <= before


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/config.yaml", "/etc/passwd", ""]
)
def test_no_file_outside_the_results_is_served(api: Callable[..., Any], member: User, path: str) -> None:
    owned = belongings(member)
    (owned.experiment.folder.parent / "secret").write_text("x")
    (owned.experiment.folder / "link").symlink_to("/etc/passwd")
    for asked in (path, "../secret", "link"):
        assert api(member).get(f"/api/experiments/mine/files/{asked}").status_code in (301, 404)


def test_folder_of_this_machine_is_no_data_set_of_the_hub(tmp_path: Path, monkeypatch: Any, settings: Any) -> None:
    from engine.config_sections import DataSection
    from training.sources import hub_data_file
    from web.errors import InvalidError

    (tmp_path / "data" / "datasets").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidError, match="no data set of the hub"):
        hub_data_file(DataSection(dataset_name="data/datasets"))


# Numbers that Python or a database can't hold, and NULs, where a form or a query has them.


@pytest.mark.medium
@pytest.mark.parametrize("number", ["9" * 5000, "9" * 19, "\u00b2", "-1"], ids=["5000 digits", "19 digits", "²", "-1"])
def test_invalid_number_breaks_no_page_and_no_operation(
    api: Callable[..., Any], client: Any, member: User, number: str
) -> None:
    belongings(member)
    client.force_login(member)
    row = {"text": "another day", "label": "good"}
    answers = [client.get(f"/datasets/mine/rows/?{name}={number}") for name in ("page", "version", "edit")]
    answers += [client.get(f"/datasets/mine/noise/?after={number}"), client.get(f"/experiments/?page={number}")]
    answers += [client.post("/datasets/mine/edit/", {"row": number, **row})]
    answers += [client.post("/datasets/mine/noise/decide/", {"rank": number, "label": "good"})]
    answers += [api(member).post("/api/datasets/mine/changes", {"did": "edit", "rows": {number: row}}, format="json")]
    assert [answer.status_code for answer in answers if answer.status_code >= 500] == []
    assert Version.objects.count() == 1


@pytest.mark.parametrize("path", ["/runs/again/", "/models/mine/card/", "/train/", "/datasets/mine/edit/", "/login/"])
def test_nul_in_a_form_is_refused(client: Any, member: User, path: str) -> None:
    belongings(member)
    client.force_login(member)
    form = {"like": "mine", "dataset": "x%00", "card": "a", "summary": ""}
    sent = "&".join(f"{name}={value}" for name, value in form.items())
    answer = client.generic("POST", path, sent, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 400 and "a NUL" in answer.content.decode()


def test_form_over_4_mib_is_refused_with_an_explanation(client: Any, member: User) -> None:
    client.force_login(member)
    sent = "yaml=" + "x" * 5_000_000
    answer = client.generic("POST", "/train/", sent, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 413 and "larger than allowed" in answer.content.decode()


# S6: nobody makes us call an address.


@contextmanager
def listener() -> Iterator[tuple[int, list[Any]]]:
    """A listening port of this machine, and the list of its callers."""
    calls: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    calls.append(server.accept()[1])
                except OSError:
                    return

        Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], calls


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/x", "127.0.0.1:{port}/x", "http://localhost:{port}", "http://2130706433:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/", "http://0x7f000001:{port}/", "http://169.254.169.254/latest/meta-data",
        "//127.0.0.1:{port}/x", "hf://127.0.0.1:{port}/x", "user@127.0.0.1:{port}/x", "http://127.1:{port}/",
    ],
)  # fmt: skip
def test_address_in_place_of_a_name_is_refused_without_a_call(
    api: Callable[..., Any], member: User, address: str
) -> None:
    with listener() as (port, calls):
        url = address.format(port=port)
        for body in (
            {"model": {"name": url}},
            {"data": {"dataset_name": url}},
            {"model": {"name": "a/b", "revision": url}},
        ):
            answer = api(member).post("/api/train", body, format="json")
            assert answer.status_code == 400
    assert calls == []


def test_base_model_that_is_not_on_the_list_is_refused_before_the_hub_is_asked(
    api: Callable[..., Any], member: User, admin: User, client: Any, monkeypatch: Any
) -> None:
    import huggingface_hub

    belongings(member)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("the hub was asked"))
    body = {"model": {"name": "somebody/evil"}, "data": {"dataset_name": "mine"}}
    refused = api(member).post("/api/train/validate", body, format="json").json()
    assert refused["errors"][0]["field"] == "model.name" and "not on the list" in refused["detail"]


def test_admin_edits_the_list_of_base_models(client: Any, admin: User) -> None:
    from accounts.permissions import base_model_allowed

    assert base_model_allowed("distilbert-base-uncased") and not base_model_allowed("google-bert/bert-base-cased")
    client.force_login(admin)
    client.post("/admin/accounts/basemodelrule/add/", {"pattern": "google-bert/*"})
    assert base_model_allowed("google-bert/bert-base-cased") and not base_model_allowed("google-bertx/y")
    assert Entry.objects.filter(action="admin.add", username="admin").exists()


# S9: what people write is shown, and never runs.

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>{{ 7|add:7 }}javascript:alert(1)'


@pytest.mark.slow
def test_markup_in_names_labels_and_texts_is_inert_on_every_page(
    client: Any, admin: User, api: Callable[..., Any]
) -> None:
    owned = belongings(admin)
    Dataset.objects.update(description=EVIL[:300])
    owned.version.labels, owned.version.note = {EVIL: 1, "good": 1}, EVIL
    owned.version.source = {"filename": EVIL, "text_column": EVIL, "label_column": EVIL}
    owned.version.save()
    Finding.objects.create(
        version=owned.version, code="markup", severity="warning", count=1, message=EVIL,
        examples=[{"row": 1, "text": EVIL, "label": EVIL}],
    )  # fmt: skip
    metrics = {
        "labels": [EVIL, "good"],
        "eval": {"accuracy": 1, "macro_f1": 1, "loss": 0.1, "confusion_matrix": [[1, 0], [0, 1]],
                 "per_label": {EVIL: {"precision": 1, "recall": 1, "f1": 1, "support": 1}}},
        "worst": [{"text": EVIL, "label": EVIL, "predicted": EVIL, "probability": 1}],
        "history": [{"step": 1, "epoch": 1, "loss": 0.1, "accuracy": 1}],
        "baseline": {"majority_accuracy": 0.5, "majority_label": EVIL},
    }  # fmt: skip
    Experiment.objects.update(metrics=metrics, accuracy=1, dataset_name=EVIL[:120], base_model=EVIL[:120])
    Task.objects.update(error={"code": "x", "message": EVIL, "kept": EVIL, "next": EVIL})
    LogLine.objects.create(task=owned.task, at=owned.task.created_at, text=EVIL)
    User.objects.filter(pk=admin.pk).update(email=EVIL[:50])
    client.force_login(admin)
    client.post("/login/", {"username": EVIL, "password": "x"})
    pages = ["/", "/datasets/", "/datasets/mine/", "/datasets/mine/rows/", "/experiments/", "/predict/", "/audit/"]
    pages += ["/people/", f"/audit/?q={EVIL}", f"/people/?q={EVIL}"]
    tabs = ("overview", "errors", "labels", "log", "config", "files", "access")
    pages += [f"/runs/{owned.task.pk}/?tab={tab}" for tab in tabs]
    for path in pages:
        answer = client.get(path)
        page = answer.content.decode()
        assert "<script>alert" not in page and "<img src=x" not in page, path
        policy = answer["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy, path
        tags = re.sub(r'"[^"]*"', '""', page)  # attributes without their values
        assert not re.search(r"<\w[^>]*\s(on\w+|style)=", tags), path


# S13: Redis holds ids; what else somebody puts there never runs.


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.slow
def test_pickle_in_the_queue_never_runs(run_worker: Callable[[], None], redis_server: str, tmp_path: Path) -> None:
    file = tmp_path / "it-ran"
    with redis.Redis.from_url(redis_server) as connection:
        evil = pickle.dumps(Trap(file))
        fields = {"data": evil, "created_at": "2026-01-01T00:00:00Z", "origin": queue.device_kind(), "status": "queued"}
        connection.hset("rq:job:evil", mapping=fields)
        connection.sadd("rq:queues", f"rq:queue:{queue.device_kind()}")
        connection.rpush(f"rq:queue:{queue.device_kind()}", "evil")
    run_worker()
    assert not file.exists()


# S14: floods. bench/flood.py does it with 10,000 sign-ins and says what others notice.


@pytest.mark.parametrize("query", ["limit=1000000", "limit=-1", "limit=1e9", "limit=9" + "9" * 400])
def test_page_of_a_million_rows_is_refused(api: Callable[..., Any], member: User, query: str) -> None:
    assert api(member).get(f"/api/experiments/mine?{query}").status_code == 400


def test_page_far_beyond_the_end_costs_nothing(client: Any, member: User) -> None:
    belongings(member)
    client.force_login(member)
    for path in ("/datasets/mine/rows/?page=999999999999", "/experiments/?page=1000000", "/datasets/?page=99999"):
        assert client.get(path).status_code == 200


def test_upload_is_refused_by_its_announced_size_before_it_is_read(
    api: Callable[..., Any], member: User, settings: Any, monkeypatch: Any
) -> None:
    settings.UPLOAD_LIMIT = 1000
    monkeypatch.setattr("rest_framework.parsers.MultiPartParser.parse", lambda *a, **k: pytest.fail("it was read"))
    file = SimpleUploadedFile("a.csv", b"x" * 3_000_000)
    answer = api(member).post("/api/datasets", {"name": "x", "file": file}, format="multipart")
    assert answer.status_code == 413 and answer.json()["code"] == "too_large"


# S15: planted secrets.


@pytest.mark.medium
def test_planted_secrets_are_in_no_log_no_error_no_entry_and_no_page(
    client: Any, admin: User, member: User, settings: Any, caplog: Any, redis_server: str
) -> None:
    caplog.set_level(logging.DEBUG)
    _token, personal = make_token(user=member, name="x", scopes=["read"], days=1)
    tokens = APIClient().post("/api/login", {"username": "member", "password": "correct-horse-9"}, format="json").json()
    planted = {
        "password": "correct-horse-9", "guess": "hunter2-planted", "key": settings.SECRET_KEY, "personal": personal,
        "access": tokens["access"], "refresh": tokens["refresh"], "text": "a-private-text-to-predict",
    }  # fmt: skip
    sent = APIClient()
    answers: list[str] = []
    for header in (f"Bearer {personal}", f"Bearer {tokens['access']}", f"Bearer {planted['guess']}"):
        sent.credentials(HTTP_AUTHORIZATION=header)
        for answer in (
            sent.get("/api/datasets"), sent.get("/api/nowhere"), sent.get("/api/audit/logs"),
            sent.post("/api/predict", {"text": planted["text"], "model": "nowhere"}, format="json"),
            sent.post("/api/login", {"username": "member", "password": planted["guess"]}, format="json"),
            sent.post("/api/logout", {"refresh": planted["guess"]}, format="json"),
        ):  # fmt: skip
            answers.append(answer.content.decode())
    Client().post("/login/", {"username": "member", "password": planted["guess"]})
    client.force_login(admin)
    pages = [
        "/",
        "/audit/",
        "/people/",
        "/people/member/",
        "/account/",
        "/account/tokens/",
        "/admin/",
        "/audit/export/",
    ]
    answers += [client.get(path).getvalue().decode() for path in pages]
    with redis.Redis.from_url(redis_server) as connection:
        stored = " ".join(str(connection.dump(key)) for key in connection.keys("*"))
    places = {
        "answers": "".join(answers),
        "log": caplog.text,
        "redis": stored,
        "audit": json.dumps(list(Entry.objects.values()), default=str),
    }
    leaks = {(where, what) for where, text in places.items() for what, secret in planted.items() if secret in text}
    assert leaks == set()
