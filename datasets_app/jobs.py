"""What the data worker calls: store a file, make a new version, search for wrong labels. Each ends in one transaction."""

from collections.abc import Callable
from typing import Any

from django.db import transaction

from datasets_app import services
from datasets_app.checks import text_statistics
from datasets_app.reading import hub
from datasets_app.review import label_errors
from datasets_app.versions import changes
from engine.errors import EngineError
from web.errors import LorasiteError
from work.lease import Heartbeat
from work.models import Status
from work.progress import Progress
from work.running import Interrupted, StopAsked, carry_out, end

from .models import DataTask

Finish = Callable[[], dict[str, Any]]  # writes what was found, inside the transaction that ends the task


def run(task_id: str) -> None:
    """Carry out one task."""
    carry_out(DataTask, task_id, do=_do, succeed=_succeed, known=(LorasiteError, EngineError))


class Told(Progress):
    """Writes how far the work is, and leaves it when somebody cancels or the worker stops."""

    def __init__(self, task: DataTask, beat: Heartbeat) -> None:
        super().__init__(task)
        self.stop_asked = StopAsked(task, beat)

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        self.changes = {"stage": DataTask.Stage(stage), "step": done, "total_steps": total}
        self.write_when_due()
        if self.stop_asked():
            raise Interrupted


def _do(task: DataTask, beat: Heartbeat) -> Finish:
    return _WORK[DataTask.Kind(task.kind)](task, Told(task, beat))


def _succeed(task: DataTask, finish: Finish) -> None:
    with transaction.atomic():
        end(task, Status.SUCCESS, stage=DataTask.Stage.DONE, result=finish(), deaths=0)


_WORK: dict[DataTask.Kind, Callable[[DataTask, Told], Finish]] = {
    DataTask.Kind.STORE: services.store_pending,
    DataTask.Kind.HUB: hub.carry_out,
    DataTask.Kind.CHANGE: changes.carry_out,
    DataTask.Kind.NOISE: label_errors.search,
    DataTask.Kind.TOKENS: text_statistics.carry_out,
}


def warm_up() -> None:
    """Import what most data work needs, so that a process forked from this one starts at once. Starts no thread."""
    import ftfy.badness
    import lingua
    import polars
    import pyarrow.csv
    import rensa

    del ftfy, lingua, polars, pyarrow, rensa
