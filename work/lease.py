"""Who holds a piece of work. A lease is a row's `lease_until` by the database's clock; `attempt` is the fencing token."""

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
from django.db.models import F
from django.db.models.functions import Now

from .models import PREPARING, Status, Work, WrongState

log = logging.getLogger(__name__)
W = TypeVar("W", bound=Work)


class Fenced(Exception):
    """Somebody else has the work, or it has ended: what this attempt still wants to write is refused."""


def holder(pid: int) -> str:
    """The name of a process that works, as `Work.worker` keeps it."""
    return f"{socket.gethostname()}:{pid}"


def expire(task: Work) -> None:
    """The holder is known to be dead: the reconciler need not wait for the lease."""
    held(task).update(lease_until=Now() - timedelta(seconds=1))


def take(kind: type[W], task_id: UUID) -> W | None:
    """Start what waits; None when another delivery of the same job was first or nothing waits any more."""
    task = kind._default_manager.filter(pk=task_id).first()
    if task is None:
        return None
    fresh: dict[str, Any] = {
        "stage": PREPARING,
        "error": None,
        "worker": holder(os.getpid()),
        "cancel_requested": False,
    }
    try:
        task.move(
            Status.STARTED,
            frm=[Status.PENDING],
            held_attempt=task.attempt,
            attempt=F("attempt") + 1,
            lease_until=_deadline(),
            started_at=Now(),
            **fresh,
        )
    except WrongState:
        return None
    return task


def renew(task: Work) -> None:
    write(task, lease_until=_deadline())


def write(task: Work, **changes: Any) -> None:
    """A write of the attempt that holds the work; Fenced when it holds it no more."""
    if not held(task).update(**changes):
        raise Fenced(f"Attempt {task.attempt} no longer holds {task.pk}.")


def held(task: Work) -> Any:
    return type(task)._default_manager.filter(pk=task.pk, attempt=task.attempt, status=Status.STARTED)


def _deadline() -> Any:
    return Now() + timedelta(seconds=settings.LEASE_SECONDS)


class Heartbeat(threading.Thread):
    """Renews the lease beside the work, over a database connection of its own.

    Long steps, evaluation and saving therefore never look like death. When the worker that forked this process has
    died, `on_orphaned` is called once, so that the work saves itself and goes back to the queue.
    """

    def __init__(self, task: Work, *, on_orphaned: Callable[[], None]) -> None:
        super().__init__(name="lease", daemon=True)
        self.task, self.on_orphaned = task, on_orphaned
        self.lost = threading.Event()
        self.renewed_at = time.monotonic()
        self._stop_asked = threading.Event()
        self._parent = os.getppid()

    def check(self) -> None:
        """Fenced when somebody else has the work. Asks the database only if the lease may have run out meanwhile.

        A frozen process wakes up so. A database that is away gives the work to nobody else either, so it goes on.
        """
        if self.lost.is_set():
            raise Fenced(f"Attempt {self.task.attempt} no longer holds {self.task.pk}.")
        if time.monotonic() - self.renewed_at > settings.LEASE_SECONDS:
            try:
                renew(self.task)
            except DatabaseError:
                connection.close()

    def run(self) -> None:
        try:
            while not self._stop_asked.wait(1) and not self.lost.is_set():
                self._watch_parent()
                if time.monotonic() - self.renewed_at > settings.LEASE_SECONDS / 4:
                    self._renew()
        finally:
            connection.close()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(timeout=5)

    def _watch_parent(self) -> None:
        if os.getppid() != self._parent:
            self._parent = os.getppid()
            self.on_orphaned()

    def _renew(self) -> None:
        asked_at = time.monotonic()
        try:
            renew(self.task)
            self.renewed_at = asked_at
        except Fenced:
            self.lost.set()
        except DatabaseError as error:
            log.warning("The lease of %s could not be renewed: %s", self.task.pk, error)
            connection.close()
