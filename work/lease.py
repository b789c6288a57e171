"""Leases: which worker holds a task. `lease_until` is by the database's clock; `attempt` is the fencing token."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from .models import PREPARING, Status, Work, WrongStateError

log = logging.getLogger(__name__)
W = TypeVar("W", bound=Work)


class LeaseLostError(Exception):
    """Another attempt holds the task, or it has ended. Further writes of this attempt are refused."""


def worker_name(pid: int) -> str:
    """Return the name of a worker's process as `Work.worker` stores it."""
    return f"{socket.gethostname()}:{pid}"


def acquire(kind: type[W], task_id: UUID) -> W | None:
    """Start a waiting task as a new attempt. Return None if it no longer waits, e.g. because its job was delivered twice."""
    task = kind._default_manager.filter(pk=task_id).first()
    if task is None:
        return None
    # Two workers may get here with the same id: `move` lets one of them through.
    try:
        task.move(
            Status.STARTED,
            frm=[Status.PENDING],
            attempt=task.attempt,
            lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS),
            worker=worker_name(os.getpid()),
            started_at=Now(),
            stage=PREPARING,
            error=None,
            cancel_requested=False,
        )
    except WrongStateError:
        return None
    return task


def renew(task: Work) -> None:
    """Extend the lease; raise LeaseLostError if this attempt no longer holds the task."""
    update(task, lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS))


def update(task: Work, **changes: Any) -> None:
    """Write to the row of a task that this attempt holds; raise LeaseLostError if it no longer does."""
    if not _held_row(task).update(**changes):
        raise LeaseLostError(f"Attempt {task.attempt} no longer holds {task.pk}.")


def expire(task: Work) -> None:
    """Let the lease run out now, because its holder is dead."""
    _held_row(task).update(lease_until=Now() - timedelta(seconds=1))


def _held_row(task: Work) -> QuerySet[Work]:
    return type(task)._default_manager.filter(pk=task.pk, attempt=task.attempt, status=Status.STARTED)


class Heartbeat(threading.Thread):
    """Renew the lease from a thread of its own, over a database connection of its own.

    So a long step, an evaluation or a save never looks like a dead worker. If the worker that forked this process dies,
    `on_orphaned` is called once, so that the task saves its place and goes back to the queue.
    """

    def __init__(self, task: Work, *, on_orphaned: Callable[[], None]) -> None:
        super().__init__(name="lease", daemon=True)
        self.task = task
        self.on_orphaned = on_orphaned
        self.lost = threading.Event()
        self.renewed_at = time.monotonic()
        self._stop_event = threading.Event()
        self._parent_pid = os.getppid()

    def check(self) -> None:
        """Raise LeaseLostError if another attempt holds the task. Query the database only if the lease may have run out.

        The lease may have run out when this process was frozen for a while.
        """
        if self.lost.is_set():
            raise LeaseLostError(f"Attempt {self.task.attempt} no longer holds {self.task.pk}.")
        if time.monotonic() - self.renewed_at > settings.LEASE_SECONDS:
            try:
                renew(self.task)
            except DatabaseError:
                connection.close()  # a database that is away gives the task to nobody else either: go on

    def run(self) -> None:
        """Watch the parent process and renew the lease, until `stop` is called or the lease is lost."""
        try:
            while not self._stop_event.wait(1) and not self.lost.is_set():
                if os.getppid() != self._parent_pid:
                    self._parent_pid = os.getppid()
                    self.on_orphaned()
                # A quarter, so that a renewal may fail twice before the lease expires.
                if time.monotonic() - self.renewed_at <= settings.LEASE_SECONDS / 4:
                    continue
                sent_at = (
                    time.monotonic()
                )  # before the query: the lease must never look longer here than in the database
                try:
                    renew(self.task)
                    self.renewed_at = sent_at
                except LeaseLostError:
                    self.lost.set()
                except DatabaseError as error:
                    log.warning("The lease of %s could not be renewed: %s", self.task.pk, error)
                    connection.close()
        finally:
            connection.close()

    def stop(self) -> None:
        self._stop_event.set()
        self.join(timeout=5)  # a renewal that hangs in the network must not hold up the end of the task
