"""What every job does around its task: start it, keep the lease, see requests to stop, and write how it ended."""

import logging
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

from django.db import DatabaseError, connection, models
from django.db.models.functions import Now

from engine.errors import EngineError
from engine.sentences import Sentence, gettext_noop
from web import disk
from web.errors import LorasiteError, is_panic
from web.sentences import pack

from . import lease, queue
from .lease import Heartbeat, LeaseLostError
from .models import QUEUED, Status, Work, WrongStateError
from .progress import Progress

log = logging.getLogger(__name__)
W = TypeVar("W", bound=Work)
Outcome = TypeVar("Outcome")
stopping = threading.Event()  # set by SIGTERM in the process that a worker forked for the job
CANCEL_CHECK_EVERY = 0.2  # seconds between two queries of cancel_requested
FINAL_WRITE_TRIES = 5


class TaskStoppedError(Exception):
    """The task has saved its place, as StopSignal requested."""


def request_stop(signum: int | None = None, frame: FrameType | None = None) -> None:
    """Make the running task save its place and go back to the queue. A signal handler."""
    stopping.set()


@dataclass(eq=False)
class StopSignal:
    """Whether a running task is to stop: after SIGTERM, and when its owner cancels it."""

    task: Work
    heartbeat: Heartbeat
    checked_at: float = 0.0

    def is_set(self) -> bool:
        """Return whether to save and raise TaskStoppedError; raise LeaseLostError if another attempt holds the task.

        To be called after each step.
        """
        self.heartbeat.check()
        if stopping.is_set():
            return True
        return self.is_cancelled()

    def is_cancelled(self) -> bool:
        """Return whether the owner has cancelled the task. Queries the database at most every CANCEL_CHECK_EVERY."""
        if time.monotonic() - self.checked_at < CANCEL_CHECK_EVERY:
            return False
        self.checked_at = time.monotonic()
        try:
            return cancel_requested(self.task)
        except DatabaseError:
            connection.close()  # the next check opens a new one; until then the task goes on
            return False


class StageProgress(Progress):
    """Write how far a task is; raise TaskStoppedError when its owner cancels it or the worker stops. stages: its `Stage`."""

    def __init__(self, task: Work, stop: StopSignal, stages: type[models.TextChoices]) -> None:
        super().__init__(task)
        self.stop = stop
        self.stages = stages

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Note the stage, with `done` of `total` steps, and write it when due."""
        self.changes = {"stage": self.stages(stage), "step": done, "total_steps": total}
        self.write_when_due()
        if self.stop.is_set():
            raise TaskStoppedError


class TaskRunner(ABC, Generic[W, Outcome]):
    """The life of one job. A kind of task is a subclass with a `model`, `perform` and `finish`."""

    model: type[W]

    @abstractmethod
    def perform(self, task: W, stop: StopSignal) -> Outcome:
        """Do the work. When `stop` is set, save the place and raise TaskStoppedError."""

    @abstractmethod
    def finish(self, task: W, outcome: Outcome) -> None:
        """Write the outcome and SUCCESS in one transaction, with `end_attempt`."""

    def run(self, task_id: str) -> None:
        """Run one task to its end. Errors of the task are written to its row and not raised."""
        if stopping.is_set():  # before the start: the row still waits, and the reconciler sends it again
            return
        if not disk.has_disk_space():  # likewise, every few seconds
            log.warning("The disk is full; task %s waits until there is room.", task_id)
            return
        task = lease.acquire(self.model, uuid.UUID(task_id))
        if task is None:
            log.info("Task %s no longer waits; nothing to do.", task_id)
            return
        self.worker_pid = os.getppid()
        heartbeat = Heartbeat(task, on_orphaned=request_stop)
        heartbeat.start()
        try:
            self._perform_and_end(task, StopSignal(task, heartbeat))
        except LeaseLostError:
            log.warning("Another worker has taken over task %s, or it has ended; this attempt stops.", task_id)
        finally:
            heartbeat.stop()

    def _perform_and_end(self, task: W, stop: StopSignal) -> None:
        try:
            outcome = self.perform(task, stop)
            write_end(lambda: self.finish(task, outcome))
        except LeaseLostError:
            raise  # not a failure of the task: the attempt that holds it writes how it ends
        except TaskStoppedError:
            write_end(lambda: end_stopped(task))
            if os.getppid() != self.worker_pid:
                # The worker was killed, and the one that replaced it has reconciled already: do not wait for its next round.
                queue.send(type(task), task.pk)
        except (LorasiteError, EngineError) as error:
            details = known_error(task, error)
            write_end(lambda: end_failed(task, details))
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            number = uuid.uuid4().hex[:8]
            log.exception("Task %s failed unexpectedly (error %s).", task.pk, number)
            write_end(lambda: end_failed(task, unexpected_error(task, number)))


def write_end(write: Callable[[], None]) -> None:
    """Call `write`, again if the database is away for a moment; raise LeaseLostError if the task is not held any more."""
    for tries_left in reversed(range(FINAL_WRITE_TRIES)):
        try:
            return write()
        except WrongStateError as error:
            raise LeaseLostError(str(error)) from None
        except DatabaseError as error:
            if not tries_left or connection.in_atomic_block:
                raise
            if disk.is_full(error):
                disk.release_reserve()  # so that the end can be written
            connection.close()
            time.sleep(2)


def end_attempt(task: Work, status: Status, **changes: Any) -> None:
    """End the task; raise WrongStateError if this attempt does not hold it any more."""
    task.move(
        status,
        frm=[Status.STARTED],
        attempt=task.attempt,
        lease_until=None,
        ended_at=Now(),
        worker="",
        **changes,
    )


def end_stopped(task: Work) -> None:
    """Write that the task was cancelled or, if the worker stops, put it back in the queue."""
    if cancel_requested(task):
        end_attempt(task, Status.CANCELLED)
        task.note("info", Sentence(str(task.messages.cancelled)))
        return
    put_back(task)
    task.note("info", Sentence(str(task.messages.worker_stopping)))


def put_back(task: Work, **changes: Any) -> None:
    """Write that the task waits in the queue again; changes: further columns."""
    task.move(
        Status.PENDING,
        frm=[Status.STARTED],
        attempt=task.attempt,
        sent_at=None,
        lease_until=None,
        worker="",
        stage=QUEUED,
        **changes,
    )


def end_failed(task: Work, error: dict[str, Any]) -> None:
    """Write that the task failed, and tell its owner; `error` is as in `Work.error`."""
    end_attempt(task, Status.FAILURE, error=error | {"sentence": pack(error["message"])})
    task.note("error", error["message"])


def cancel_requested(task: Work) -> bool:
    return type(task)._default_manager.filter(pk=task.pk, cancel_requested=True).exists()


def known_error(task: Work, error: LorasiteError | EngineError) -> dict[str, Any]:
    """Return `Work.error` for an error that has a sentence, a code and perhaps the name of the field at fault."""
    details = {
        "code": error.code,
        "message": error.message if isinstance(error, EngineError) else str(error),
        "kept": str(task.messages.error_kept_by_code.get(error.code, task.messages.error_kept)),
        "next": str(task.messages.known_error_next),
    }
    fields = [error.field] if isinstance(error, EngineError) else [problem["field"] for problem in error.problems]
    named_fields = [field for field in fields if field]
    if named_fields:
        details["field"] = named_fields[0]
    return details


def unexpected_error(task: Work, number: str) -> dict[str, Any]:
    """Return `Work.error` for an error in our code; `number` leads to its traceback in the server's log."""
    return {
        "code": "unexpected",
        "message": Sentence(gettext_noop("An unexpected error occurred (error {number})."), number=number),
        "kept": str(task.messages.error_kept),
        "next": str(task.messages.unexpected_error_next),
        "id": number,
    }
