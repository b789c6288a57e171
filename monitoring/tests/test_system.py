"""The System page, and the same state by API and command."""

import json
import shutil
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client

from monitoring.models import Worker
from testing.belongings import belongings
from training.models import Status, Task

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(client: Client, admin: Any) -> Any:
    """A function that returns the page as an administrator sees it."""
    client.force_login(admin)
    return lambda **headers: client.get("/system/", **headers).content.decode()


def test_complete_installation_is_shown_as_ready_first(page: Any, redis_server: str, worker: Any) -> None:
    text = page()
    assert "Everything that training and predictions need is available." in text and "mill:5" in text and "Idle" in text
    assert text.index("Everything that") < text.index("mill:5")


def test_installation_without_a_worker_says_how_to_start_one(page: Any) -> None:
    assert "No worker is running, so new runs wait." in page()


def test_dead_worker_is_shown_offline_and_its_queue_unserved(page: Any, dead_worker: Any, member: Any) -> None:
    Task.objects.filter(pk=belongings(member).task.pk).update(status=Status.PENDING)
    text = page()
    assert ">Offline<" in text and "1, no worker" in text and "Something that training or predictions need" in text


def test_worker_names_the_run_that_its_child_trains(page: Any, worker: Any, member: Any) -> None:
    task = belongings(member).task
    Task.objects.filter(pk=task.pk).update(status=Status.STARTED, worker="mill:7")
    assert f'href="/runs/{task.pk}/">mine<' in page()


def test_disk_that_is_nearly_full_is_marked(page: Any, settings: Any) -> None:
    settings.MIN_FREE_DISK = shutil.disk_usage(settings.DATA_DIR).free // 2
    assert "Nearly full" in page()


def test_run_that_was_set_aside_can_be_resumed_from_here(page: Any, client: Client, member: Any) -> None:
    task = belongings(member).task
    error = {"code": "worker_lost", "message": "The worker died 3 times near step 4."}
    Task.objects.filter(pk=task.pk).update(status=Status.FAILURE, error=error)
    assert f'action="/runs/{task.pk}/resume/"' in page()
    client.post(f"/runs/{task.pk}/resume/")
    assert "died 3 times" not in page()


def test_poll_renders_only_the_live_part(page: Any, worker: Any) -> None:
    text = page(HTTP_HX_REQUEST="true")
    assert text.strip().startswith('<div id="system"') and "<html" not in text


def test_api_returns_the_same_state(api: Any, admin: Any, worker: Any) -> None:
    answer = api(admin).get("/api/system").json()
    assert (
        answer["ready"] is False
        and answer["workers"][0] | {"name": "mill:5", "alive": True, "task_id": None} == answer["workers"][0]
    )
    assert {check["name"] for check in answer["checks"]} == {"database", "redis", "disk", "workers"}


def test_command_ends_with_1_while_a_check_fails(dead_worker: Any, redis_server: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("system")
    assert ended.value.code == 1 and "Failed   workers" in capsys.readouterr().out
    Worker.objects.update(seen_at=Now() - timedelta(seconds=1))
    call_command("system", "--json")
    assert json.loads(capsys.readouterr().out)["ready"] is True
