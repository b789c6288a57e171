"""What every job does around its work: take it, keep the lease, ask whether to stop, end it rightly."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from web import disk
from web.errors import LorasiteError, is_panic

from . import lease
from .lease import Fenced, Heartbeat
from .models import QUEUED, Status, Work, WrongState

log = logging.getLogger(__name__)
W = TypeVar("W", bound=Work)
stopping = threading.Event()  # set by SIGTERM in the work-horse: save, then give the work back
ASK_EVERY = 0.2  # seconds between two looks at cancel_requested
_FINAL_WRITES = 5  # tries of the last write, when the database is away for a moment


class Interrupted(Exception):
    """The work has saved its place, because `StopAsked` said so."""


def request_stop(signum: int | None = None, frame: Any = None) -> None:
    stopping.set()


def carry_out(
    kind: type[W],
    task_id: str,
    *,
    do: Callable[[W, Heartbeat], Any],
    succeed: Callable[[W, Any], None],
    known: tuple[type[Exception], ...] = (LorasiteError,),
    interrupted: type[Exception] = Interrupted,
) -> None:
    """Bring one piece of work to its end. Never raises for what belongs to it: that is in its row by then.

    `do` works and returns what `succeed` records together with SUCCESS; an error of `known` has a sentence and a code.
    """
    if stopping.is_set():
        return
    if not disk.has_room():  # the reconciler sends it again every few seconds
        log.warning("The disk is full; task %s waits until there is room.", task_id)
        return
    task = lease.take(kind, uuid.UUID(task_id))
    if task is None:
        log.info("Task %s is not waiting any more; nothing to do.", task_id)
        return
    beat = Heartbeat(task, on_orphaned=request_stop)
    beat.start()
    try:
        _work_and_end(task, beat, do, succeed, known, interrupted)
    except Fenced:
        log.warning("Task %s was taken over by somebody else or has ended; this attempt stops.", task_id)
    finally:
        beat.stop()


def _work_and_end(
    task: W,
    beat: Heartbeat,
    do: Callable[[W, Heartbeat], Any],
    succeed: Callable[[W, Any], None],
    known: tuple[type[Exception], ...],
    interrupted: type[Exception],
) -> None:
    try:
        found = do(task, beat)
        _last_write(succeed, task, found)
    except Fenced:
        raise
    except interrupted:
        _last_write(_stopped, task)
    except known as error:
        _last_write(_fail, task, _known(task, error))
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        number = uuid.uuid4().hex[:8]
        log.exception("Task %s failed unexpectedly (error %s).", task.pk, number)
        _last_write(_fail, task, _unforeseen(task, number))


class StopAsked:
    """The work asks after each step: True on SIGTERM and on cancel; both save its place first."""

    def __init__(self, task: Work, beat: Heartbeat) -> None:
        self.task, self.beat, self.asked_at = task, beat, 0.0

    def __call__(self) -> bool:
        self.beat.check()
        return stopping.is_set() or self._cancelled()

    def _cancelled(self) -> bool:
        if time.monotonic() - self.asked_at < ASK_EVERY:
            return False
        self.asked_at = time.monotonic()
        try:
            return _is_to_be_cancelled(self.task)
        except DatabaseError:
            connection.close()
            return False


def _is_to_be_cancelled(task: Work) -> bool:
    return type(task)._default_manager.filter(pk=task.pk, cancel_requested=True).exists()


def _last_write(write: Any, task: Work, *arguments: Any) -> None:
    """The end of the work is written even if the database comes back only after a while."""
    for tries_left in reversed(range(_FINAL_WRITES)):
        try:
            return write(task, *arguments)
        except WrongState as error:
            raise Fenced(str(error)) from None
        except DatabaseError as error:
            if not tries_left or connection.in_atomic_block:
                raise
            if disk.is_full(error):
                disk.release()
            connection.close()
            time.sleep(2)


def end(task: Work, status: Status, **changes: Any) -> None:
    """The last move of the attempt that holds the work."""
    task.move(
        status, frm=[Status.STARTED], held_attempt=task.attempt, lease_until=None, ended_at=Now(), worker="", **changes
    )


def _stopped(task: Work) -> None:
    """The work has saved its place: cancelled by a person, or given back because the worker stops."""
    if _is_to_be_cancelled(task):
        end(task, Status.CANCELLED)
        return task.note("info", str(task.words.cancelled))
    task.move(
        Status.PENDING,
        frm=[Status.STARTED],
        held_attempt=task.attempt,
        sent_at=None,
        lease_until=None,
        worker="",
        stage=QUEUED,
    )
    task.note("info", str(task.words.given_back))


def _fail(task: Work, error: dict[str, Any]) -> None:
    end(task, Status.FAILURE, error=error)
    task.note("error", error["message"])


def _known(task: Work, error: Any) -> dict[str, Any]:
    fields = [getattr(error, "field", None), *(problem["field"] for problem in getattr(error, "problems", []))]
    return {
        "code": error.code,
        "message": str(error),
        "kept": str(task.words.kept_after.get(error.code, task.words.kept)),
        "next": str(task.words.after_known),
        **({"field": field} if (field := next(filter(None, fields), None)) else {}),
    }


def _unforeseen(task: Work, number: str) -> dict[str, Any]:
    return {
        "code": "unexpected",
        "message": _("Something broke that was not foreseen (error {number}).").format(number=number),
        "kept": str(task.words.kept),
        "next": str(task.words.after_unforeseen),
        "id": number,
    }
