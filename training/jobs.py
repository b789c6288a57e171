"""What RQ calls, and nothing else: run the engine, write its events, record what it left."""

from contextlib import closing
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from datasets_app.models import STORED_COLUMNS, Version
from engine.config import RunConfig
from engine.errors import EngineError, Interrupted
from experiments.services import record_result
from web.errors import LorasiteError
from work.lease import Heartbeat
from work.paths import token_cache_dir
from work.progress import Progress
from work.running import Interrupted as GivenUp
from work.running import StopAsked, carry_out, end

from . import estimates
from .models import Stage, Status, Task, Timing
from .progress import TrainingProgress
from .sources import hub_data_file


def run(task_id: str) -> None:
    """Train one task to its end."""
    carry_out(Task, task_id, do=_train, succeed=_succeed, known=(EngineError, LorasiteError), interrupted=Interrupted)


def _train(task: Task, beat: Heartbeat) -> dict[str, Any]:
    from engine import train

    config = run_config(task.experiment.config, task.experiment.version)
    progress = TrainingProgress(task, logging_steps=config.training.logging_steps)
    task.note("info", _("Attempt {n} starts.").format(n=task.attempt))
    metrics: dict[str, Any] = {}
    version, results = task.experiment.version, task.experiment.folder
    events = train(
        config,
        **where(config, version),
        dataset_hash=version.hash if version else None,
        results=results,
        should_save=StopAsked(task, beat),
    )
    try:
        with closing(events):
            for event in events:
                beat.check()
                progress.take(event)
                metrics = getattr(event, "metrics", metrics)
    finally:
        progress.write()
    return metrics


def where(config: RunConfig, version: Version | None) -> dict[str, Any]:
    """Where the engine finds what it needs."""
    return {
        "data_file": version.path if version else hub_data_file(config.data),
        "base_models_dir": settings.BASE_MODELS_DIR,
        "cache_dir": token_cache_dir(),
    }


def run_config(asked: dict[str, Any], version: Version | None) -> RunConfig:
    """The configuration; the platform's own datasets hold their columns under fixed names."""
    config = RunConfig.parse(asked)
    if version:
        config.data = config.data.model_copy(update=STORED_COLUMNS)
    return config


def measure(task_id: str) -> None:
    """Take a few steps of a run that is thought of, and keep how long they took."""
    carry_out(Timing, task_id, do=_measure, succeed=_keep, known=(EngineError, LorasiteError))


def _measure(task: Timing, beat: Heartbeat) -> dict[str, Any]:
    from engine.training.estimate import measure

    config, stop_asked, progress = run_config(task.config, task.version), StopAsked(task, beat), Progress(task)

    def told(done: int, total: int) -> None:
        progress.changes = {"step": done, "total_steps": total}
        progress.write_when_due()
        if stop_asked():
            raise GivenUp

    return measure(config, **where(config, task.version), told=told).to_json()


def _keep(task: Timing, measured: dict[str, Any]) -> None:
    end(task, Status.SUCCESS, result=measured, deaths=0)


def _succeed(task: Task, metrics: dict[str, Any]) -> None:
    """SUCCESS and the experiment's record are one transaction: the record refuses a model that is not there."""
    summary = {name: metrics.get("eval", {}).get(name) for name in ("accuracy", "macro_f1", "loss")}
    with transaction.atomic():
        foreseen = estimates.beside_truth(task, metrics)
        end(task, Status.SUCCESS, stage=Stage.DONE, result=summary, eta_seconds=0, deaths=0, foreseen=foreseen)
        record_result(experiment=task.experiment, metrics=metrics)
        task.note("info", _("Done."))
