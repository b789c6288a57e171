"""What RQ calls, and nothing else: take the task, run the engine, write its events, end the task rightly."""

import logging
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts.errors import LorasiteError
from experiments.services import record_result

from . import lease
from .engine.config import RunConfig
from .engine.errors import EngineError, Interrupted
from .lease import Fenced
from .models import Stage, Status, Task, WrongState
from .progress import Progress
from .sources import hub_data_file

log = logging.getLogger(__name__)
stopping = threading.Event()  # set by SIGTERM in the work-horse: save, then give the task back
ASK_EVERY = 0.2  # seconds between two looks at cancel_requested
_FINAL_WRITES = 5  # tries of the last write, when the database is away for a moment


def request_stop(signum: int | None = None, frame: Any = None) -> None:
    stopping.set()


def run(task_id: str) -> None:
    """Train one task to its end. Never raises for what belongs to the task: that is in its row by then."""
    if stopping.is_set():
        return
    task = lease.take(uuid.UUID(task_id))
    if task is None:
        log.info("Task %s is not waiting any more; nothing to do.", task_id)
        return
    beat = lease.Heartbeat(task, on_orphaned=request_stop)
    beat.start()
    try:
        _train_and_end(task, beat)
    except Fenced:
        log.warning("Task %s was taken over by somebody else or has ended; this attempt stops.", task_id)
    finally:
        beat.stop()


def _train_and_end(task: Task, beat: lease.Heartbeat) -> None:
    try:
        metrics = _train(task, beat)
        _last_write(_succeed, task, metrics)
    except Fenced:
        raise
    except Interrupted:
        _last_write(_stopped, task)
    except (EngineError, LorasiteError) as error:
        _last_write(_fail, task, _known(error))
    except Exception:
        number = uuid.uuid4().hex[:8]
        log.exception("Task %s failed unexpectedly (error %s).", task.pk, number)
        _last_write(_fail, task, _unexpected(number))


def _train(task: Task, beat: lease.Heartbeat) -> dict[str, Any]:
    from .engine import train

    config = run_config(task)
    progress = Progress(task, logging_steps=config.training.logging_steps)
    lease.note(task, "info", _("Attempt {n} starts.").format(n=task.attempt))
    metrics: dict[str, Any] = {}
    events = train(config, **engine_arguments(task, config), should_save=StopAsked(task, beat))
    try:
        with closing(events):
            for event in events:
                beat.check()
                progress.take(event)
                metrics = getattr(event, "metrics", metrics)
    finally:
        progress.write()
    return metrics


def engine_arguments(task: Task, config: RunConfig) -> dict[str, Any]:
    version = task.experiment.version
    return {
        "data_file": version.path if version else hub_data_file(config.data),
        "dataset_hash": version.hash if version else None,
        "results": task.experiment.folder,
        "base_models_dir": settings.BASE_MODELS_DIR,
        "cache_dir": Path(settings.DATA_DIR) / "cache" / "tokens",
    }


def run_config(task: Task) -> RunConfig:
    """The configuration; the platform's own datasets hold their columns under fixed names."""
    config = RunConfig.parse(task.experiment.config)
    if task.experiment.version_id:
        config.data.text_column, config.data.label_column, config.data.split_column = "text", "label", "split"
    return config


class StopAsked:
    """The engine asks after each step: True on SIGTERM and on cancel; both save a checkpoint first."""

    def __init__(self, task: Task, beat: lease.Heartbeat) -> None:
        self.task, self.beat, self.asked_at = task, beat, 0.0

    def __call__(self) -> bool:
        self.beat.check()
        return stopping.is_set() or self._cancelled()

    def _cancelled(self) -> bool:
        if time.monotonic() - self.asked_at < ASK_EVERY:
            return False
        self.asked_at = time.monotonic()
        try:
            return Task.objects.filter(pk=self.task.pk, cancel_requested=True).exists()
        except DatabaseError:
            connection.close()
            return False


def _last_write(write: Any, task: Task, *arguments: Any) -> None:
    """The end of a run is written even if the database comes back only after a while."""
    for tries_left in reversed(range(_FINAL_WRITES)):
        try:
            return write(task, *arguments)
        except WrongState as error:
            raise Fenced(str(error)) from None
        except DatabaseError:
            if not tries_left or connection.in_atomic_block:
                raise
            connection.close()
            time.sleep(2)


def _succeed(task: Task, metrics: dict[str, Any]) -> None:
    """SUCCESS and the experiment's record are one transaction: the record refuses a model that is not there."""
    summary = {name: metrics.get("eval", {}).get(name) for name in ("accuracy", "macro_f1", "loss")}
    with transaction.atomic():
        _end(task, Status.SUCCESS, stage=Stage.DONE, result=summary, eta_seconds=0, deaths=0)
        record_result(experiment=task.experiment, metrics=metrics)
        lease.note(task, "info", _("Done."))


def _stopped(task: Task) -> None:
    """The engine has saved its place: cancelled by a person, or given back because the worker stops."""
    if Task.objects.filter(pk=task.pk, cancel_requested=True).exists():
        _end(task, Status.CANCELLED)
        return lease.note(task, "info", _("Cancelled. The last checkpoint is kept; the run can be resumed."))
    task.move(
        Status.PENDING,
        frm=[Status.STARTED],
        held_attempt=task.attempt,
        sent_at=None,
        lease_until=None,
        worker="",
        stage=Stage.QUEUED,
    )
    lease.note(task, "info", _("The worker stops; the run is saved and waits for the next one."))


def _fail(task: Task, error: dict[str, Any]) -> None:
    _end(task, Status.FAILURE, error=error)
    lease.note(task, "error", error["message"])


def _end(task: Task, status: Status, **changes: Any) -> None:
    task.move(
        status, frm=[Status.STARTED], held_attempt=task.attempt, lease_until=None, ended_at=Now(), worker="", **changes
    )


def _known(error: EngineError | LorasiteError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": str(error),
        "kept": _("The configuration, the log and the checkpoints that were written are kept."),
        "next": _("Change what the message names and train again, or resume this run once the cause is gone."),
        **({"field": field} if (field := getattr(error, "field", None)) else {}),
    }


def _unexpected(number: str) -> dict[str, Any]:
    return {
        "code": "unexpected",
        "message": _("Something broke that was not foreseen (error {number}).").format(number=number),
        "kept": _("The configuration, the log and the checkpoints that were written are kept."),
        "next": _("Resume the run; if it breaks again, tell your administrator the number: the server's log has more."),
        "id": number,
    }
