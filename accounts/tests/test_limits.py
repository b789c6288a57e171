"""Throttles and quotas: too much is refused in words, and nobody else notices."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import Client
from rest_framework.test import APIClient

from accounts import services
from accounts.models import User
from accounts.quotas import MIB, QuotaReachedError
from experiments.models import Experiment
from testing.belongings import belongings
from training.models import Status, Task
from training.selectors import note_for
from training.services import parse_config, submit
from work import queue


@pytest.fixture
def counted(redis_server: str, settings: Any) -> None:
    """Two requests a minute of each kind, counted in a real Valkey."""
    settings.CACHES = {**settings.CACHES, "throttles": {**settings.CACHES["throttles"], "LOCATION": redis_server}}
    settings.THROTTLES = dict.fromkeys(settings.THROTTLES, "2/minute")
    caches["throttles"].clear()


BODY = {"experiment_name": "x", "data": {"dataset_name": "nowhere"}}
REQUESTS: dict[str, Any] = {
    "login": lambda user: APIClient().post("/api/login", {"username": "x", "password": "y"}, format="json"),
    "login page": lambda user: Client().post("/login/", {"username": "x", "password": "y"}),
    "train": lambda user: user.post("/api/train", BODY, format="json"),
    "validate": lambda user: user.post("/api/train/validate", BODY, format="json"),
    "upload": lambda user: user.post("/api/datasets", {"name": "x"}, format="multipart"),
    "predict": lambda user: user.post("/api/predict", {"text": "x", "model": "nowhere"}, format="json"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_too_many_requests_are_refused_with_the_time_to_wait(
    counted: None, api: Callable[..., Any], member: User, kind: str
) -> None:
    client = api(member)
    answers = [REQUESTS[kind](client) for _ in range(3)]
    assert [a.status_code == 429 for a in answers] == [False, False, True]
    if kind != "login page":
        assert 0 < int(answers[-1]["Retry-After"]) <= 60 and answers[-1]["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("address", ["/v1/chat/completions", "/v1/completions"])
def test_too_many_answers_of_language_models_are_refused_as_clients_of_openai_expect(
    counted: None, api: Callable[..., Any], member: User, address: str
) -> None:
    client = api(member)
    answers = [client.post(address, {"model": "nowhere", "prompt": "x"}, format="json") for _ in range(3)]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True]
    error = answers[-1].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 0 < int(answers[-1]["Retry-After"]) <= 60


@pytest.mark.medium
@pytest.mark.parametrize("path", ["/train/", "/predict/", "/datasets/new/", "/chat/"])
def test_posts_to_pages_are_counted_and_reads_are_not(counted: None, client: Any, member: User, path: str) -> None:
    client.force_login(member)
    assert [client.get(path).status_code for _ in range(4)] == [200] * 4
    statuses = [client.post(path, {}).status_code for _ in range(3)]
    assert statuses[-1] == 429 and 429 not in statuses[:2]


def test_listing_datasets_does_not_count_as_an_upload(counted: None, api: Callable[..., Any], member: User) -> None:
    client = api(member)
    assert [client.get("/api/datasets").status_code for _ in range(4)] == [200] * 4
    assert REQUESTS["upload"](client).status_code == 400


def test_requests_are_counted_per_person_and_per_address(
    counted: None, api: Callable[..., Any], member: User, stranger: User
) -> None:
    body = {"text": "x", "model": "nowhere"}

    def fetch_status(user: User, address: str) -> int:
        return int(api(user).post("/api/predict", body, format="json", REMOTE_ADDR=address).status_code)

    assert [fetch_status(member, f"192.0.2.{n}") for n in (1, 2, 3)] == [404, 404, 429]
    assert [fetch_status(stranger, "192.0.2.9") for _ in range(3)] == [404, 404, 429]


def test_addresses_of_one_ipv6_network_are_counted_together(db: None, counted: None) -> None:
    def fetch_status(address: str) -> int:
        return int(Client().post("/login/", {"username": "x", "password": "y"}, REMOTE_ADDR=address).status_code)

    assert [fetch_status(f"2001:db8:0:7::{n}") for n in range(3)] == [200, 200, 429]
    assert fetch_status("2001:db8:0:8::1") == 200


def test_pickle_among_the_counters_never_runs(db: None, counted: None, redis_server: str, tmp_path: Any) -> None:
    """Django's own serializer would run it."""
    bomb = f"cos\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR.".encode()
    connection = redis.Redis.from_url(redis_server)
    Client().post("/login/", {"username": "x", "password": "y"})
    (key,) = connection.keys("*throttle:login*")
    connection.set(key, bomb)
    with contextlib.suppress(ValueError):
        Client().post("/login/", {"username": "x", "password": "y"})
    assert not (tmp_path / "ran").exists()


def test_without_redis_nobody_is_throttled(api: Callable[..., Any], member: User, settings: Any) -> None:
    nowhere = {**settings.CACHES["throttles"], "LOCATION": "unix:///nowhere.sock"}
    settings.CACHES = {**settings.CACHES, "throttles": nowhere}
    settings.THROTTLES = dict.fromkeys(settings.THROTTLES, "1/minute")
    assert [REQUESTS["predict"](api(member)).status_code for _ in range(3)] == [404] * 3


@pytest.fixture
def dataset(member: User, tweets_csv: Any) -> Any:
    from testing.datasets import store_dataset

    return store_dataset(member, "tweets", tweets_csv).dataset


def run(user: User, name: str) -> Task:
    return submit(user=user, config=parse_config({"experiment_name": name, "data": {"dataset_name": "tweets"}}))


@pytest.mark.medium
def test_queue_quota_says_the_number_and_what_to_do(api: Callable[..., Any], member: User, dataset: Any) -> None:
    User.objects.filter(pk=member.pk).update(queued_limit=1)
    member.refresh_from_db()
    run(member, "first")
    body = {"experiment_name": "second", "data": {"dataset_name": "tweets"}}
    refused = api(member).post("/api/train", body, format="json")
    assert refused.status_code == 409 and refused.json()["code"] == "quota_reached"
    assert "limit of queued runs (1 of 1)" in refused.json()["detail"] and "Cancel one" in refused.json()["detail"]
    assert not Experiment.objects.filter(name="second").exists()
    Task.objects.update(status=Status.CANCELLED)
    run(member, "second")


def test_running_quota_keeps_the_rest_in_the_database(
    redis_server: str, member: User, admin: User, dataset: Any, django_capture_on_commit_callbacks: Any
) -> None:
    User.objects.filter(pk=member.pk).update(running_limit=1)
    member.refresh_from_db()
    with django_capture_on_commit_callbacks(execute=True):
        first, second = run(member, "first"), run(member, "second")
        other = submit(user=admin, config=parse_config({"experiment_name": "o", "data": {"dataset_name": "tweets"}}))
    for task in (first, second, other):
        task.refresh_from_db()
    assert first.sent_at and other.sent_at and second.sent_at is None
    assert "fewer than 1 of your runs" in note_for(second)
    assert note_for(first) == "Next in the queue." and note_for(other) == "Waiting in the queue. Runs ahead: 2."
    Task.objects.filter(pk__in=[first.pk, second.pk]).update(status=Status.STARTED)
    assert "as soon as a run in progress ends" in note_for(other)
    Task.objects.filter(pk=second.pk).update(status=Status.PENDING)
    Task.objects.filter(pk=first.pk).update(status=Status.SUCCESS)
    assert queue.send(Task, second.pk)


def test_storage_quota_counts_data_and_results(member: User, tweets_csv: Any) -> None:
    from datasets_app.services import create_version

    owned = belongings(member, "mine")
    (owned.experiment.folder / "big.bin").write_bytes(b"0" * 2 * MIB)
    User.objects.filter(pk=member.pk).update(storage_limit_mb=2)
    member.refresh_from_db()
    with pytest.raises(QuotaReachedError, match="your limit is 2 MiB"):
        create_version(user=member, name="more", file=tweets_csv, filename="tweets.csv")


def test_account_page_shows_use_and_limit(client: Any, member: User, settings: Any) -> None:
    settings.QUOTAS = {"running": 2, "queued": 5, "storage": 100}
    belongings(member, "mine")
    client.force_login(member)
    page = client.get("/account/").content.decode()
    assert all(words in page for words in ("runs in the queue", ">5<", "storage in MiB", ">100<"))


def test_installations_limits_hold_unless_an_admin_set_others(member: User, admin: User, settings: Any) -> None:
    from accounts.quotas import limit_of

    settings.QUOTAS = {"running": None, "queued": 5, "storage": 100}
    assert (limit_of(member, "running"), limit_of(member, "queued"), limit_of(member, "storage")) == (
        None,
        5,
        100 * MIB,
    )
    services.set_limits(user=admin, person=member, queued_limit=7)
    assert limit_of(member, "queued") == 7
