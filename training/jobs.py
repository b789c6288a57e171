"""The functions that RQ calls for training: run the engine, write its events, record what it left."""

from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

from django.conf import settings
from django.db import transaction

from datasets_app.models import Version
from engine import train
from engine.config import RunConfig
from engine.errors import RunInterruptedError
from engine.sentences import Sentence, gettext_noop
from engine.training import estimate
from experiments.services import record_result
from experiments.task_types import TASK_TYPES, task_type_of
from work.paths import token_cache_dir
from work.progress import Progress
from work.running import StopSignal, TaskRunner, TaskStoppedError, end_attempt

from . import estimates
from .models import Stage, Status, Task, Timing
from .progress import TrainingProgress
from .sources import hub_data_file


def run(task_id: str) -> None:
    """Train one task to its end. RQ calls this by its dotted name."""
    TrainingRunner().run(task_id)


def measure(task_id: str) -> None:
    """Take a few steps of a planned run and store how long they took. RQ calls this by its dotted name."""
    TimingRunner().run(task_id)


class TrainingRunner(TaskRunner[Task, dict[str, Any]]):
    """Train; the outcome is the content of metrics.json."""

    model = Task

    def perform(self, task: Task, stop: StopSignal) -> dict[str, Any]:
        version = task.experiment.version
        config, paths = engine_inputs(task.experiment.config, version)
        progress = TrainingProgress(task, logging_steps=config.training.logging_steps)
        task.note("info", Sentence(gettext_noop("Attempt {n} starts."), n=task.attempt))
        metrics: dict[str, Any] = {}
        events = train(
            config,
            **paths,
            dataset_hash=version.hash if version else None,
            results=task.experiment.folder,
            should_save=stop.is_set,
        )
        try:
            with closing(events):  # cleans up behind the engine at once, also when the lease is lost
                for event in events:
                    stop.heartbeat.check()
                    progress.add(event)
                    metrics = getattr(event, "metrics", metrics)
        except RunInterruptedError:
            raise TaskStoppedError from None
        finally:
            progress.write()  # what came within the last second
        return metrics

    def finish(self, task: Task, outcome: dict[str, Any]) -> None:
        """Write SUCCESS and the experiment's results; neither is written if the model's files are not there."""
        evaluation = outcome.get("eval", {})
        task_type = task_type_of(outcome)
        summary = {name: evaluation.get(name) for name in ("accuracy", "macro_f1", "loss")}
        summary |= {
            "task_type": task_type,
            "scores": {name: evaluation.get(name) for name in TASK_TYPES[task_type].metrics},
        }
        estimate_with_usage = estimates.with_actual_usage(task, outcome)
        with transaction.atomic():
            record_result(experiment=task.experiment, metrics=outcome)  # first: the message at the end tells the score
            end_attempt(
                task,
                Status.SUCCESS,
                stage=Stage.DONE,
                result=summary,
                eta_seconds=0,
                deaths=0,
                foreseen=estimate_with_usage,
            )
            task.note("info", Sentence(gettext_noop("Done.")))


class TimingRunner(TaskRunner[Timing, dict[str, Any]]):
    """Measure a few steps of a planned run; the outcome is `engine.training.estimate.RunMeasurement` as JSON."""

    model = Timing

    def perform(self, task: Timing, stop: StopSignal) -> dict[str, Any]:
        config, paths = engine_inputs(task.config, task.version)
        progress = Progress(task)

        def report_progress(done: int, total: int) -> None:
            progress.changes = {"step": done, "total_steps": total}
            progress.write_when_due()
            if stop.is_set():
                raise TaskStoppedError

        return estimate.measure_run(config, **paths, report_progress=report_progress).to_json()

    def finish(self, task: Timing, outcome: dict[str, Any]) -> None:
        end_attempt(task, Status.SUCCESS, result=outcome, deaths=0)


class EnginePaths(TypedDict):
    data_file: Path
    base_models_dir: Path | None
    cache_dir: Path


def engine_inputs(stored: dict[str, Any], version: Version | None) -> tuple[RunConfig, EnginePaths]:
    """Return the stored configuration, and where the engine finds data, base models and cached tokens.

    Without a version, the data are those of the hub, which are downloaded the first time.
    """
    config = RunConfig.parse(stored)
    if version:
        # The platform stores every dataset under column names of its own, whatever those of the file were.
        config.data = config.data.model_copy(update=version.run_columns)
    paths: EnginePaths = {
        "data_file": version.path if version else hub_data_file(config.data),
        "base_models_dir": settings.BASE_MODELS_DIR,
        "cache_dir": token_cache_dir(),
    }
    return config, paths
