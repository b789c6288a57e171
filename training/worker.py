"""The RQ worker: one queue, forks per task, reconciles while it waits and while a task trains, outlives Redis.

The parent never runs a tensor operation and starts no thread, so that forking stays safe. RQ's own notion of failure
plays no part: the database says what became of a task.
"""

import logging
import signal
import sys
import time
from datetime import timedelta
from types import FrameType
from typing import Any

import redis
from django.db import DatabaseError, connections
from django.utils.translation import gettext as _
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from . import jobs, lease, queue
from .engine import warm_up
from .engine.limits import refuse_more_than_free
from .models import Status, Task
from .reconciler import reconcile, take_back_abandoned
from .signals import worker_alive, worker_left

log = logging.getLogger(__name__)
RECONCILE_EVERY = 10.0  # seconds
GRACE = timedelta(seconds=30)  # from SIGTERM until a second one kills the run that is being saved


class TrainingWorker(Worker):
    max_connection_wait_time = 5.0

    def __init__(self, kind: str, connection: redis.Redis) -> None:
        super().__init__([kind], connection=connection, serializer=JSONSerializer, job_monitoring_interval=5)
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
        super().heartbeat(timeout, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Any) -> None:
        self.reconcile_when_due()
        try:
            super().maintain_heartbeats(job, execution)
        except redis.RedisError as error:
            log.warning("Redis is away (%s); the run goes on.", error)

    def reconcile_when_due(self) -> None:
        if time.monotonic() - self.reconciled_at >= RECONCILE_EVERY:
            self.reconciled_at = time.monotonic()
            reconcile_safely()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """A database connection must not be shared by two processes."""
        connections.close_all()
        super().fork_work_horse(job, queue)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the forked process: memory that runs out is an error that the engine meets, not the kernel's kill."""
        refuse_more_than_free()
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """SIGTERM means: finish the step, save, give the task back."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, jobs.request_stop)

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
        """The process that trained is gone, so its lease ends now; a kill for memory is told in the task's log."""
        try:
            task = _held_by(job, retpid)
            if task is None:
                return
            if ret_val == signal.SIGKILL:
                lease.note(task, "error", _killed_sentence(rusage.ru_maxrss))
            lease.expire(task)
            take_back_abandoned()
        except DatabaseError as error:
            log.warning("The end of job %s could not be noted: %s", job.id, error)


def _held_by(job: Job, pid: int) -> Task | None:
    held = Task.objects.filter(pk=job.args[0], status=Status.STARTED, worker=lease.holder(pid))
    return held.select_related("experiment").first()


def _killed_sentence(peak: int) -> str:
    """`peak`: ru_maxrss, in KiB on Linux and in bytes on macOS."""
    text = _(
        "The system killed the training process, as it does when memory runs out (SIGKILL); "
        "its peak was {peak:.0f} MiB. The checkpoints are kept and the run is tried again."
    )
    return text.format(peak=peak / (2**20 if sys.platform == "darwin" else 2**10))


def reconcile_safely() -> None:
    worker_alive.send_robust(sender=None, kind=queue.device_kind())
    try:
        counts = reconcile()
        if any(counts.values()):
            log.info("Reconciled: %s", counts)
    except DatabaseError as error:
        log.warning("The database is away (%s); trying again.", error)
        connections.close_all()


def work(*, burst: bool = False) -> None:
    """Serve this machine's queue until SIGTERM; a Redis that goes away is waited for, never died of."""
    warm_up()  # once, before any fork: each task then starts with its libraries in memory that is shared
    while True:
        reconcile_safely()
        worker = _serve(burst)
        if burst or (worker and worker.stop_requested):
            worker_left.send_robust(sender=None)
            return
        time.sleep(1)


def _serve(burst: bool) -> TrainingWorker | None:
    worker = None
    try:
        worker = TrainingWorker(queue.device_kind(), queue.connect(timeout=30))
        worker.work(burst=burst, logging_level="INFO")
    except redis.RedisError as error:
        log.warning("Redis is away (%s); trying again.", error)
    return worker
