"""The process that has everything imported and forks a worker, by killing real processes."""

import signal

import psutil
import pytest

from training.models import Status
from training.tests.conftest import horse_of, long, reaches, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.process]


def worker_of(preloaded: int, *, other_than: int = 0) -> psutil.Process:
    """Return the forked worker, once there is one beside `other_than`."""

    def children() -> list[psutil.Process]:
        command = psutil.Process(preloaded).cmdline()  # libraries start short programs while they are imported
        return [
            child
            for child in psutil.Process(preloaded).children()
            if child.pid != other_than and child.cmdline() == command
        ]

    until(children, what="a worker")
    return children()[0]


def test_run_of_a_killed_worker_goes_on_in_one_that_has_imported_everything(submit, start_worker):
    task = submit(long())
    preloaded = start_worker()
    reaches(task, status=Status.STARTED, step=lambda now: now >= 3)
    worker = psutil.Process(horse_of(task)).parent()
    assert worker is not None
    assert worker.ppid() == preloaded.pid
    worker.kill()
    reaches(task, attempt=2, status=Status.STARTED)
    reaches(task, facts=lambda now: now.get("resumed_from_step", 0) >= 3)
    # The next worker is forked with everything imported; bench/kills.py tells the seconds.
    assert psutil.Process(horse_of(task)).ppid() == worker_of(preloaded.pid, other_than=worker.pid).pid
    assert task.deaths == 0  # the killed worker's run saved its place by itself


def test_worker_and_run_end_with_the_process_that_forked_them(submit, start_worker):
    task = submit(long())
    preloaded = start_worker()
    reaches(task, status=Status.STARTED, step=lambda now: now >= 3)
    horse = psutil.Process(horse_of(task))
    worker = worker_of(preloaded.pid)
    preloaded.kill()
    assert preloaded.wait(60) == -signal.SIGKILL
    _gone, left = psutil.wait_procs([horse, worker], timeout=60)
    assert not left
    task.refresh_from_db()
    assert task.status == Status.PENDING


def test_preloaded_process_needs_hardly_any_memory_and_holds_no_connection(start_worker):
    preloaded = psutil.Process(start_worker().pid)
    worker_of(preloaded.pid)
    # Once the worker has written to the pages that it will not share. A second process that imports everything takes 460 MiB.
    until(lambda: preloaded.memory_full_info().uss < 60 * 2**20, what="less than 60 MiB of its own")
    assert not preloaded.net_connections()
