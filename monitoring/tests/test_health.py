"""/healthz and /readyz: their statuses and reasons."""

import shutil
from typing import Any

import pytest
from django.test import Client

from monitoring import health

pytestmark = pytest.mark.django_db


def checks(client: Client, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = client.get(f"/readyz{query}")
    return answer.status_code, answer.json()["checks"]


def test_whole_installation_is_ready(client: Client, redis_server: str, worker: Any) -> None:
    status, results = checks(client)
    assert status == 200
    assert {name: check["state"] for name, check in results.items()} == {
        "database": "ok", "redis": "ok", "disk": results["disk"]["state"], "workers": "ok",
    }  # fmt: skip
    assert results["workers"]["reason"] == "1 worker is alive."


def test_missing_redis_and_worker_are_explained_without_addresses(client: Client, settings: Any) -> None:
    status, results = checks(client)
    assert status == 503
    assert "Redis does not answer" in results["redis"]["reason"] and "manage.py worker" in results["workers"]["reason"]
    assert settings.REDIS_URL not in str(results)


def test_dead_worker_is_reported_with_the_time_it_was_last_seen(client: Client, dead_worker: Any) -> None:
    status, results = checks(client)
    dead_worker.refresh_from_db()
    assert status == 503 and f"{dead_worker.seen_at:%Y-%m-%d %H:%M:%S}" in results["workers"]["reason"]


@pytest.mark.parametrize(("share", "state", "status"), [(0, "ok", 200), (0.5, "warning", 200), (2, "error", 503)])
def test_disk_is_nearly_full_before_it_is_full(
    client: Client, settings: Any, share: float, state: str, status: int
) -> None:
    settings.MIN_FREE_DISK = int(share * shutil.disk_usage(settings.DATA_DIR).free)
    assert checks(client, "?only=disk")[0] == status
    assert health.disk().state == state


def test_probe_runs_only_the_named_checks_so_a_dead_worker_takes_no_page_offline(
    client: Client, dead_worker: Any
) -> None:
    status, results = checks(client, "?only=database&only=disk")
    assert status == 200 and results.keys() == {"database", "disk"}


def test_probes_work_under_any_host_name_and_open_no_session(client: Client) -> None:
    answer = client.get("/healthz", HTTP_HOST="10.1.2.3:8000")
    assert (answer.status_code, answer.json(), answer.cookies) == (200, {"status": "ok"}, {})
    assert client.get("/login/", HTTP_HOST="10.1.2.3:8000").status_code == 400
