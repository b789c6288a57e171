"""The function that RQ calls for work on data: store a file, make a new version, search for wrong labels."""

from collections.abc import Callable
from typing import Any

from django.db import transaction

from datasets_app import services
from datasets_app.checks import text_statistics
from datasets_app.reading import hub
from datasets_app.review import label_errors
from datasets_app.versions import changes
from work.models import Status
from work.running import StageProgress, StopSignal, TaskRunner, end_attempt

from .models import DataTask

Finish = Callable[[], dict[str, Any]]  # stores what was made; called in the transaction that ends the task


def run(task_id: str) -> None:
    """Carry out one task. RQ calls this by its dotted name."""
    DataRunner().run(task_id)


class DataRunner(TaskRunner[DataTask, Finish]):
    """Carry out a task on data; the outcome is the function that stores its result."""

    model = DataTask

    def perform(self, task: DataTask, stop: StopSignal) -> Finish:
        return _WORK[DataTask.Kind(task.kind)](task, StageProgress(task, stop, DataTask.Stage))

    def finish(self, task: DataTask, outcome: Finish) -> None:
        with transaction.atomic():
            end_attempt(task, Status.SUCCESS, stage=DataTask.Stage.DONE, result=outcome(), deaths=0)


_WORK: dict[DataTask.Kind, Callable[[DataTask, StageProgress], Finish]] = {
    DataTask.Kind.STORE: services.store_pending,
    DataTask.Kind.HUB: hub.fetch_for_task,
    DataTask.Kind.CHANGE: changes.change_for_task,
    DataTask.Kind.NOISE: label_errors.search_wrong_labels,
    DataTask.Kind.TOKENS: text_statistics.count_tokens_for_task,
}


def warm_up() -> None:
    """Import what most tasks on data need, so that a process forked from this one starts at once. Starts no thread."""
    import ftfy.badness
    import lingua
    import polars
    import pyarrow.csv
    import rensa

    del ftfy, lingua, polars, pyarrow, rensa
