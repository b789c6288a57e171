"""The RQ worker: serves one queue, forks per job, reconciles while it waits and while a job runs, and outlives Redis.

Three generations of processes: the first one imports the libraries (work/respawn.py), its child is the RQ worker, whose
child runs the job. The first two never run a tensor operation and start no thread, so that forking stays safe. RQ's own
record of failures is not used: the database says how a task ended.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from resource import struct_rusage
from types import FrameType

import redis
from django.db import DatabaseError, connections
from redis.client import Pipeline
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from accounts.removals import carry_out_due_removals
from engine.sentences import Sentence

from . import lease, queue, running
from .models import Status, task_kinds
from .parent import end_with
from .reconciler import reconcile, take_back_abandoned
from .respawn import keep_running
from .signals import worker_alive, worker_left
from .stop_signals import STOP_SIGNALS, held_back

log = logging.getLogger(__name__)
RECONCILE_EVERY = 10.0  # seconds
GRACE = timedelta(seconds=30)  # from SIGTERM until a second one kills the process that is saving a task


class ForkingWorker(Worker):
    """RQ's worker, whose forked child ("work horse") runs the job; see the module's docstring for what differs."""

    # RQ doubles its pause up to a minute while Redis is away, and does not reconcile meanwhile.
    max_connection_wait_time = 5.0

    def __init__(self, queue_name: str, connection: redis.Redis, in_horse: Callable[[], None]) -> None:
        super().__init__([queue_name], connection=connection, serializer=JSONSerializer, job_monitoring_interval=5)
        self.queue_name = queue_name
        self.in_horse = in_horse
        self.reconciled_at = float("-inf")
        self.parent_pid = os.getppid()

    @property
    def stop_requested(self) -> bool:
        return self._shutdown_requested_date is not None

    @property
    def dequeue_timeout(self) -> int:
        """Return how many seconds to wait for a job before waking up to reconcile."""
        return 5

    def subscribe(self) -> None:
        """Do nothing. RQ would start a thread that listens for commands; none are sent, and a thread makes forks unsafe."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Also reconcile and look for a request to stop. RQ calls this every few seconds while it waits for a job."""
        if pipeline is None and not self.is_horse:
            self.reconcile_when_due()
            if os.getppid() != self.parent_pid:  # on systems where its end sends no signal
                self._stop_requested = True
            if self.stop_requested:  # again: a library may have caught the one that the signal handler raised
                raise StopRequested
        super().heartbeat(timeout, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Also reconcile, and outlive Redis. RQ calls this every few seconds while a job runs."""
        self.reconcile_when_due()
        try:
            super().maintain_heartbeats(job, execution)
        except redis.RedisError as error:
            log.warning("Redis is away (%s); the task goes on.", error)

    def reconcile_when_due(self) -> None:
        if time.monotonic() - self.reconciled_at >= RECONCILE_EVERY:
            self.reconciled_at = time.monotonic()
            reconcile_safely(self.queue_name)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        connections.close_all()  # two processes must not share a database connection
        self.pid_before_fork = os.getpid()
        super().fork_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Prepare the forked process. SIGTERM makes it finish its step, save, and put the task back in the queue.

        RQ calls this first in the new process. Ctrl-C is left to the parent, which sends SIGTERM.
        """
        self.in_horse()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, running.request_stop)
        end_with(
            self.pid_before_fork
        )  # so that a run whose worker is killed saves at once, and the next worker resumes it

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop once the running task is saved. Sends Redis nothing: it may be away, and this is a signal handler."""
        self._shutdown_requested_date = now()
        self._stop_requested = True
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)
        if not self.horse_pid:
            raise StopRequested
        self.kill_horse(signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Kill the task only if the second signal comes after GRACE.

        Ctrl-C reaches the whole process group, and our supervisor sends SIGTERM besides: neither may end a save.
        """
        first_request_at = self._shutdown_requested_date or now()
        if now() - first_request_at > GRACE:
            super().request_force_stop(signum, frame)

    @held_back()
    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: struct_rusage) -> None:
        """Let the lease of a dead child expire now, and report a SIGKILL (memory ran out) to the task's owner."""
        kinds = [kind for kind in task_kinds() if kind.job == job.func_name]
        try:
            # Only if that child holds the task: it may have died after the end, or before it acquired the lease.
            held = {"pk": job.args[0], "status": Status.STARTED, "worker": lease.worker_name(retpid)}
            task = kinds[0]._default_manager.filter(**held).first() if kinds else None
            if task is None:
                return
            if ret_val == signal.SIGKILL:
                # ru_maxrss is in bytes on macOS, in KiB elsewhere.
                peak_mib = rusage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
                task.note("error", Sentence(str(task.messages.process_killed), peak=peak_mib))
            lease.expire(task)
            take_back_abandoned()
        except DatabaseError as error:
            log.warning("The end of job %s could not be written: %s", job.id, error)


@held_back()
def reconcile_safely(queue_name: str) -> None:
    """Do one round of the reconciler and signal that the worker is alive. A database that is away is logged."""
    worker_alive.send_robust(sender=None, kind=queue_name)
    try:
        counts = reconcile()
        carry_out_due_removals()
        if any(counts.values()):
            log.info("Reconciled: %s", counts)
    except DatabaseError as error:
        log.warning("The database is away (%s); trying again.", error)
        connections.close_all()


def work(queue_name: str, *, warm_up: Callable[[], None], in_horse: Callable[[], None], burst: bool = False) -> int:
    """Serve a queue until SIGTERM, and return the exit status.

    `warm_up` runs once, before any fork: the worker, each one that replaces it, and each job start with its libraries in
    memory that is shared. `in_horse` runs at the start of each job's process. With `burst`, return when the queue is empty.
    """
    warm_up()
    connections.close_all()  # processes must not share a database connection
    return keep_running(lambda: serve(queue_name, in_horse=in_horse, burst=burst))


def serve(queue_name: str, *, in_horse: Callable[[], None], burst: bool) -> None:
    """Work on a queue's jobs until SIGTERM. While Redis is away, wait for it."""
    signals: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        raise StopRequested

    with suppress(StopRequested):
        while not signals:
            for signum in STOP_SIGNALS:  # while Redis is away, no RQ worker handles them
                signal.signal(signum, stop)
            reconcile_safely(queue_name)
            worker = None
            try:
                worker = ForkingWorker(queue_name, queue.connect(timeout=30), in_horse)
                worker.work(burst=burst, logging_level="INFO")
            except redis.RedisError as error:
                log.warning("Redis is away (%s); trying again.", error)
            if burst or (worker and worker.stop_requested):
                break
            time.sleep(1)
    with held_back():
        worker_left.send_robust(sender=None)
