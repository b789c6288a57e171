"""The process that has everything imported and forks a worker, by killing real processes."""

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


def test_preloaded_process_is_small_forks_another_worker_and_ends_with_all_it_forked(submit, start_worker):
    """One process for all of it, because each takes seconds to import everything."""
    task = submit(long())
    preloaded = psutil.Process(start_worker().pid)
    reaches(task, status=Status.STARTED, step=lambda now: now >= 3)
    worker = psutil.Process(horse_of(task)).parent()
    assert worker is not None
    assert worker.ppid() == preloaded.pid
    # Once the worker has written to the pages that it will not share. A second process that imports everything takes 460 MiB.
    until(lambda: preloaded.memory_full_info().uss < 60 * 2**20, what="less than 60 MiB of its own")
    assert not preloaded.net_connections()

    worker.kill()
    reaches(task, attempt=2, status=Status.STARTED)
    reaches(task, facts=lambda now: now.get("resumed_from_step", 0) >= 3)
    # The next worker is forked with everything imported; bench/kills.py tells the seconds.
    horse, next_worker = psutil.Process(horse_of(task)), worker_of(preloaded.pid, other_than=worker.pid)
    assert horse.ppid() == next_worker.pid
    assert task.deaths == 0  # the killed worker's run saved its place by itself

    preloaded.kill()
    _gone, left = psutil.wait_procs([preloaded, horse, next_worker], timeout=60)
    assert not left
    task.refresh_from_db()
    assert task.status == Status.PENDING
