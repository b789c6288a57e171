"""/metrics: who may read it, and its values."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from inference.metrics import count_predictions
from monitoring import selectors
from monitoring.metrics import exposition
from testing.belongings import belongings
from training.models import Status, Task, Timing
from web.errors import InvalidError

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]


def values() -> dict[tuple[str, str], float]:
    """Return all values by metric name and the value of the first label."""
    families = text_string_to_metric_families(exposition().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, next(iter(s.labels.values()), "")): s.value for s in samples}


def test_metrics_are_read_on_this_machine_but_not_through_a_proxy(client: Client) -> None:
    here: dict[str, Any] = {"HTTP_HOST": "localhost:8000", "REMOTE_ADDR": "127.0.0.1"}
    assert client.get("/metrics", **here).status_code == 200
    for elsewhere in (
        {"REMOTE_ADDR": "192.168.1.7"},
        {"HTTP_HOST": "lora.example.org"},
        {"HTTP_X_FORWARDED_FOR": "203.0.113.9"},
        {"HTTP_HOST": "localhost.example.org"},
    ):
        answer = client.get("/metrics", **here | elsewhere)
        assert answer.status_code == 403 and "METRICS_TOKEN" in answer.content.decode()


def test_with_a_token_set_only_the_token_reads_metrics(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = "a-token"
    assert client.get("/metrics", HTTP_HOST="10.1.2.3", HTTP_AUTHORIZATION="Bearer a-token").status_code == 200
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer another").status_code == 403
    assert client.get("/metrics", HTTP_HOST="localhost", REMOTE_ADDR="127.0.0.1").status_code == 403


def test_queues_and_tasks_come_from_the_database(member: Any, worker: Any) -> None:
    waiting, running = belongings(member, "waiting").task, belongings(member, "running").task
    Task.objects.filter(pk=waiting.pk).update(status=Status.PENDING)
    Task.objects.filter(pk=running.pk).update(status=Status.STARTED, tokens_per_second=1234, sent_at=None)
    metrics = values()
    assert metrics["lorasite_queue_length", "cpu"] == 1 and 0 <= metrics["lorasite_queue_oldest_seconds", "cpu"] < 60
    assert metrics["lorasite_running_tokens_per_second", "cpu"] == 1234
    assert (metrics["lorasite_tasks", "STARTED"], metrics["lorasite_tasks", "SUCCESS"]) == (1, 0)
    assert (metrics["lorasite_workers", "cpu"], metrics["lorasite_workers", "cuda"]) == (1, 0)
    assert metrics["lorasite_worker_cpu_ratio", "mill:5"] == pytest.approx(0.4)
    assert (metrics["lorasite_check_ok", "database"], metrics["lorasite_check_ok", "redis"]) == (1, 0)


def test_kinds_of_task_that_share_a_queue_are_added_up(member: Any) -> None:
    Task.objects.filter(pk=belongings(member).task.pk).update(status=Status.STARTED, tokens_per_second=1234)
    Timing.objects.create(owner=member, key="benchmark", config={})
    queue = next(state for state in selectors.queues() if state.kind == "cpu")
    assert (queue.waiting, queue.running, queue.tokens_per_second) == (1, 1, 1234)


def test_each_gpu_of_a_worker_has_its_own_metrics(worker: Any) -> None:
    gpu = {"name": "GPU", "memory_bytes": 100, "memory_used_bytes": 25, "use_percent": 50, "celsius": 61}
    worker.figures = worker.figures | {"gpus": [gpu]}
    worker.save()
    metrics = values()
    assert (metrics["lorasite_gpu_use_ratio", "0"], metrics["lorasite_gpu_memory_used_bytes", "0"]) == (0.5, 25)


def test_predictions_are_counted_by_outcome(db: None) -> None:
    before = values()
    with count_predictions(3):
        pass
    with pytest.raises(InvalidError), count_predictions(1):
        raise InvalidError
    after = values()
    assert after["lorasite_predictions_total", "ok"] - before["lorasite_predictions_total", "ok"] == 3
    assert after["lorasite_predictions_total", "invalid"] >= 1
    assert after["lorasite_prediction_seconds_count", ""] - before["lorasite_prediction_seconds_count", ""] == 2


def test_exactly_our_metrics_are_documented(worker: Any) -> None:
    families = text_string_to_metric_families(exposition().decode())
    there = {family.name for family in families if family.name.startswith("lorasite_")}
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(lorasite_\w+)", page, re.MULTILINE))
    assert {name.removesuffix("_total") for name in documented} == there
