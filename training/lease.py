"""Who holds a task. A lease is a row's `lease_until` by the database's clock; `attempt` is the fencing token."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from .models import LogLine, Stage, Status, Task, WrongState

log = logging.getLogger(__name__)


class Fenced(Exception):
    """Somebody else has the task, or it has ended: what this attempt still wants to write is refused."""


def holder(pid: int) -> str:
    """The name of a process that trains, as `Task.worker` keeps it."""
    return f"{socket.gethostname()}:{pid}"


def expire(task: Task) -> None:
    """The holder is known to be dead: the reconciler need not wait for the lease."""
    held(task).update(lease_until=Now() - timedelta(seconds=1))


def take(task_id: UUID) -> Task | None:
    """Start a waiting task; None when another delivery of the same job was first or nothing waits any more."""
    task = Task.objects.select_related("experiment__version", "owner").filter(pk=task_id).first()
    if task is None:
        return None
    fresh: dict[str, Any] = {
        "stage": Stage.PREPARING,
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


def renew(task: Task) -> None:
    write(task, lease_until=_deadline())


def write(task: Task, **changes: Any) -> None:
    """A write of the attempt that holds the task; Fenced when it holds it no more."""
    if not held(task).update(**changes):
        raise Fenced(f"Attempt {task.attempt} no longer holds task {task.pk}.")


def held(task: Task) -> Any:
    return Task.objects.filter(pk=task.pk, attempt=task.attempt, status=Status.STARTED)


def note(task: Task, level: str, text: str) -> None:
    """A line in the run's log, in the database and in logs.txt."""
    line = LogLine.objects.create(task=task, at=timezone.now(), level=level, text=text[:1000])
    _append_to_file(task, line)


def _append_to_file(task: Task, line: LogLine) -> None:
    """logs.txt is a copy for people; a disk that refuses it must not end the run."""
    try:
        task.experiment.folder.mkdir(parents=True, exist_ok=True)
        with open(task.experiment.folder / "logs.txt", "a", encoding="utf-8") as file:
            file.write(f"{line.at:%Y-%m-%d %H:%M:%S} {line.text}\n")
    except OSError as error:
        log.warning("logs.txt of %s could not be written: %s", task.experiment.name, error)


def _deadline() -> Any:
    return Now() + timedelta(seconds=settings.LEASE_SECONDS)


class Heartbeat(threading.Thread):
    """Renews the lease beside the training, over a database connection of its own.

    Long steps, evaluation and saving therefore never look like death. When the worker that forked this process has
    died, `on_orphaned` is called once, so that the run saves itself and goes back to the queue.
    """

    def __init__(self, task: Task, *, on_orphaned: Callable[[], None]) -> None:
        super().__init__(name="lease", daemon=True)
        self.task, self.on_orphaned = task, on_orphaned
        self.lost = threading.Event()
        self.renewed_at = time.monotonic()
        self._stop_asked = threading.Event()
        self._parent = os.getppid()

    def check(self) -> None:
        """Fenced when somebody else has the task. Asks the database only if the lease may have run out meanwhile.

        A frozen process wakes up so. A database that is away gives the task to nobody else either, so the run goes on.
        """
        if self.lost.is_set():
            raise Fenced(f"Attempt {self.task.attempt} no longer holds task {self.task.pk}.")
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
            log.warning("The lease of task %s could not be renewed: %s", self.task.pk, error)
            connection.close()
