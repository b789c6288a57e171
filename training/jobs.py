"""What RQ calls, and nothing else: run the engine, write its events, record what it left."""

from contextlib import closing
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts.errors import LorasiteError
from experiments.services import record_result
from work.lease import Heartbeat
from work.running import StopAsked, carry_out, end

from .engine.config import RunConfig
from .engine.errors import EngineError, Interrupted
from .models import Stage, Status, Task
from .progress import TrainingProgress
from .sources import hub_data_file


def run(task_id: str) -> None:
    """Train one task to its end."""
    carry_out(Task, task_id, do=_train, succeed=_succeed, known=(EngineError, LorasiteError), interrupted=Interrupted)


def _train(task: Task, beat: Heartbeat) -> dict[str, Any]:
    from .engine import train

    config = run_config(task)
    progress = TrainingProgress(task, logging_steps=config.training.logging_steps)
    task.note("info", _("Attempt {n} starts.").format(n=task.attempt))
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


def _succeed(task: Task, metrics: dict[str, Any]) -> None:
    """SUCCESS and the experiment's record are one transaction: the record refuses a model that is not there."""
    summary = {name: metrics.get("eval", {}).get(name) for name in ("accuracy", "macro_f1", "loss")}
    with transaction.atomic():
        end(task, Status.SUCCESS, stage=Stage.DONE, result=summary, eta_seconds=0, deaths=0)
        record_result(experiment=task.experiment, metrics=metrics)
        task.note("info", _("Done."))
