"""The engine's events become rows, written together at most once a second."""

from collections.abc import Callable
from typing import Any

import psutil
from django.utils import timezone

from engine import events
from engine.training.results import describe
from work.progress import Progress

from .models import LogLine, Point, Stage, Task

STEP_FIELDS = ["epoch", "loss", "learning_rate", "tokens_per_second", "cpu_percent", "memory_mb", "gpu_memory_mb"]
EVAL_FIELDS = ["epoch", "eval_loss", "accuracy", "macro_f1"]


class TrainingProgress(Progress):
    """Turns events into changes of the task, points of its curves and lines of its log."""

    task: Task

    def __init__(self, task: Task, *, logging_steps: int = 1) -> None:
        super().__init__(task)
        self.logging_steps = logging_steps
        self.forget()
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first answer is always 0

    def take(self, event: events.Event) -> None:
        if listener := _LISTENERS.get(type(event)):
            listener(self, event)
        if said := describe(event, self.logging_steps):
            self.log(getattr(event, "level", "info"), said)
        self.write_when_due()

    def log(self, level: str, text: str) -> None:
        self.lines.append(LogLine(task=self.task, at=timezone.now(), level=level, text=text[:1000]))

    def write_more(self) -> None:
        _upsert(self.steps, STEP_FIELDS)
        _upsert(self.evaluations, EVAL_FIELDS)
        LogLine.objects.bulk_create(self.lines)

    def forget(self) -> None:
        super().forget()
        self.steps: dict[int, Point] = {}
        self.evaluations: dict[int, Point] = {}
        self.lines: list[LogLine] = []

    def _stage(self, event: events.StageChanged) -> None:
        self.changes["stage"] = Stage(event.stage)

    def _prepared(self, event: events.Prepared) -> None:
        facts = {name: getattr(event, name) for name in event.__dataclass_fields__}
        self.changes |= {"total_steps": event.total_steps, "step": event.resumed_from_step, "facts": facts}

    def _step(self, event: events.StepDone) -> None:
        names = ("step", "total_steps", "epoch", "loss", "tokens_per_second", "eta_seconds")
        self.changes |= {name: getattr(event, name) for name in names}
        if event.step % self.logging_steps and event.step not in (1, event.total_steps):
            return
        self.steps[event.step] = self._point(event)

    def _point(self, event: events.StepDone) -> Point:
        return Point(
            task=self.task,
            step=event.step,
            epoch=event.epoch,
            loss=event.loss,
            learning_rate=event.learning_rate,
            tokens_per_second=event.tokens_per_second,
            cpu_percent=self.process.cpu_percent(),
            memory_mb=self.process.memory_info().rss / 2**20,
            gpu_memory_mb=gpu_memory_mb(),
        )

    def _evaluated(self, event: events.Evaluated) -> None:
        m = event.metrics
        self.evaluations[event.step] = Point(
            task=self.task,
            step=event.step,
            epoch=event.epoch,
            eval_loss=m.get("loss"),
            accuracy=m.get("accuracy"),
            macro_f1=m.get("macro_f1"),
        )


def gpu_memory_mb() -> float | None:
    """GPU memory in use by this process, in MiB; None without CUDA. The engine has loaded torch by now."""
    import torch

    return torch.cuda.memory_allocated() / 2**20 if torch.cuda.is_initialized() else None


def _upsert(points: dict[int, Point], fields: list[str]) -> None:
    """A resumed run measures some steps again; an evaluation shares its row with the step that it followed."""
    Point.objects.bulk_create(
        points.values(), update_conflicts=True, unique_fields=["task", "step"], update_fields=fields
    )


_LISTENERS: dict[type, Callable[[TrainingProgress, Any], None]] = {
    events.StageChanged: TrainingProgress._stage,
    events.Prepared: TrainingProgress._prepared,
    events.StepDone: TrainingProgress._step,
    events.Evaluated: TrainingProgress._evaluated,
}
