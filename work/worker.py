"""The RQ worker: one queue, forks per job, reconciles while it waits and while a job runs, outlives Redis.

The parent never runs a tensor operation and starts no thread, so that forking stays safe. RQ's own notion of failure
plays no part: the database says what became of the work.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any

import redis
from django.db import DatabaseError, connections
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from . import lease, queue, running
from .models import Status, Work, kinds
from .reconciler import reconcile, take_back_abandoned
from .signals import worker_alive, worker_left

log = logging.getLogger(__name__)
RECONCILE_EVERY = 10.0  # seconds
GRACE = timedelta(seconds=30)  # from SIGTERM until a second one kills the work that is being saved


class ForkingWorker(Worker):
    max_connection_wait_time = 5.0

    def __init__(self, name: str, connection: redis.Redis, in_horse: Callable[[], None]) -> None:
        super().__init__([name], connection=connection, serializer=JSONSerializer, job_monitoring_interval=5)
        self.queue_name, self.in_horse = name, in_horse
        self.reconciled_at = float("-inf")

    @property
    def stop_requested(self) -> bool:
        return self._shutdown_requested_date is not None

    @property
    def dequeue_timeout(self) -> int:
        """Wakes up so often while idle, to reconcile."""
        return 5

    def subscribe(self) -> None:
        """RQ would start a thread that listens for its own commands; nobody sends any, and a thread spoils the fork."""

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        if pipeline is None and not self.is_horse:
            self.reconcile_when_due()
            if self.stop_requested:  # whatever caught StopRequested when the signal came
                raise StopRequested
        super().heartbeat(timeout, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Any) -> None:
        self.reconcile_when_due()
        try:
            super().maintain_heartbeats(job, execution)
        except redis.RedisError as error:
            log.warning("Redis is away (%s); the work goes on.", error)

    def reconcile_when_due(self) -> None:
        if time.monotonic() - self.reconciled_at >= RECONCILE_EVERY:
            self.reconciled_at = time.monotonic()
            reconcile_safely(self.queue_name)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """A database connection must not be shared by two processes."""
        connections.close_all()
        super().fork_work_horse(job, queue)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the forked process."""
        self.in_horse()
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """SIGTERM means: finish the step, save, give the work back."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, running.request_stop)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Warm stop. Asks Redis nothing: it may be away, and this runs inside a signal handler."""
        self._shutdown_requested_date = now()
        self._stop_requested = True
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)
        if not self.horse_pid:
            raise StopRequested
        self.kill_horse(signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Ctrl-C reaches a process group and its supervisor both; only a signal after the grace kills a save."""
        if now() - (self._shutdown_requested_date or now()) > GRACE:
            super().request_force_stop(signum, frame)

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """The process that worked is gone, so its lease ends now; a kill for memory is told to the work's person."""
        try:
            task = _held_by(job, retpid)
            if task is None:
                return
            if ret_val == signal.SIGKILL:
                task.note("error", str(task.words.killed).format(peak=_mib(rusage.ru_maxrss)))
            lease.expire(task)
            take_back_abandoned()
        except DatabaseError as error:
            log.warning("The end of job %s could not be noted: %s", job.id, error)


def _held_by(job: Job, pid: int) -> Work | None:
    mine = {"pk": job.args[0], "status": Status.STARTED, "worker": lease.holder(pid)}
    kind = next((kind for kind in kinds() if kind.job == job.func_name), None)
    return kind._default_manager.filter(**mine).first() if kind else None


def _mib(maxrss: int) -> float:
    """`maxrss`: ru_maxrss, in KiB on Linux and in bytes on macOS."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def reconcile_safely(name: str) -> None:
    worker_alive.send_robust(sender=None, kind=name)
    try:
        counts = reconcile()
        if any(counts.values()):
            log.info("Reconciled: %s", counts)
    except DatabaseError as error:
        log.warning("The database is away (%s); trying again.", error)
        connections.close_all()


def work(name: str, *, warm_up: Callable[[], None], in_horse: Callable[[], None], burst: bool = False) -> None:
    """Serve the queue `name` until SIGTERM; a Redis that goes away is waited for, never died of.

    `warm_up` runs once, before any fork: each job then starts with its libraries in memory that is shared. `in_horse`
    runs at the start of each forked process.
    """
    warm_up()
    with suppress(StopRequested):
        _serve_until_asked(name, in_horse, burst)
    worker_left.send_robust(sender=None)


def _serve_until_asked(name: str, in_horse: Callable[[], None], burst: bool) -> None:
    asked: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        raise StopRequested

    while not asked:
        for signum in (signal.SIGTERM, signal.SIGINT):  # no RQ worker hears them while Redis is away
            signal.signal(signum, stop)
        reconcile_safely(name)
        worker = _serve(name, in_horse, burst)
        if burst or (worker and worker.stop_requested):
            return
        time.sleep(1)


def _serve(name: str, in_horse: Callable[[], None], burst: bool) -> ForkingWorker | None:
    worker = None
    try:
        worker = ForkingWorker(name, queue.connect(timeout=30), in_horse)
        worker.work(burst=burst, logging_level="INFO")
    except redis.RedisError as error:
        log.warning("Redis is away (%s); trying again.", error)
    return worker
