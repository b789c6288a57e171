"""Turn the engine's events into rows of the database, written together at most once a second."""

from dataclasses import asdict

import psutil

from engine import events
from engine.training.results import describe
from web.sentences import pack
from work.progress import Progress

from .models import LogLine, Point, Stage, Task

PLACE_FIELDS = ["epoch", "tokens", "runtime_s"]
STEP_FIELDS = [
    *PLACE_FIELDS, "loss", "learning_rate", "grad_norm", "tokens_per_second", "cpu_percent", "memory_mb", "gpu_memory_mb"
]  # fmt: skip
EVAL_FIELDS = [*PLACE_FIELDS, "eval_loss", "accuracy", "macro_f1", "scores", "answers"]


class TrainingProgress(Progress):
    """Collect changes of a run's task, points of its curves and lines of its log."""

    task: Task

    def __init__(self, task: Task, *, logging_steps: int = 1) -> None:
        super().__init__(task)
        self.logging_steps = logging_steps
        self.steps: dict[int, Point] = {}
        self.evaluations: dict[int, Point] = {}
        self.lines: list[LogLine] = []
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first answer is always 0

    def add(self, event: events.Event) -> None:
        """Take over what an event says, and write if that is due; raise LeaseLostError as `write` does."""
        match event:
            case events.StageChanged():
                self.changes["stage"] = Stage(event.stage)
            case events.Prepared():
                self.changes["total_steps"] = event.total_steps
                self.changes["step"] = event.resumed_from_step
                self.changes["facts"] = asdict(event)
            case events.Notice():
                self.add_notice(event)
            case events.StepDone():
                self.add_step(event)
            case events.Evaluated():
                self.evaluations[event.step] = Point(
                    task=self.task,
                    step=event.step,
                    epoch=event.epoch,
                    tokens=event.total_tokens,
                    runtime_s=event.runtime_s,
                    eval_loss=event.metrics.get("loss"),
                    accuracy=event.metrics.get("accuracy"),
                    macro_f1=event.metrics.get("macro_f1"),
                    scores=event.metrics,
                    answers=event.answers,
                )
        text = describe(event, self.logging_steps)
        if text:
            level = event.level if isinstance(event, events.Notice) else "info"
            self.lines.append(LogLine.of(self.task, level, text))
        self.write_when_due()

    def add_notice(self, event: events.Notice) -> None:
        """Take over a notice, unless an earlier attempt has given the same one."""
        notice = asdict(event) | {"message": event.message[:1000], "sentence": pack(event.message)}
        if notice not in self.task.notices:
            self.task.notices = [*self.task.notices, notice]
            self.changes["notices"] = self.task.notices

    def add_step(self, event: events.StepDone) -> None:
        """Take over a step: the newest values for the row, and a point of the curves at every `logging_steps`."""
        import torch  # heavy, and the engine has loaded it by now

        for name in ("step", "total_steps", "epoch", "loss", "tokens_per_second", "eta_seconds"):
            self.changes[name] = getattr(event, name)
        if event.step % self.logging_steps and event.step not in (1, event.total_steps):
            return
        self.steps[event.step] = Point(
            task=self.task,
            step=event.step,
            epoch=event.epoch,
            tokens=event.total_tokens,
            runtime_s=event.runtime_s,
            loss=event.loss if event.mean_loss is None else event.mean_loss,
            learning_rate=event.learning_rate,
            grad_norm=event.grad_norm,
            tokens_per_second=event.tokens_per_second,
            cpu_percent=self.process.cpu_percent(),
            memory_mb=self.process.memory_info().rss / 2**20,
            gpu_memory_mb=torch.cuda.memory_allocated() / 2**20 if torch.cuda.is_initialized() else None,
        )

    def write_more(self) -> None:
        for points, fields in ((self.steps, STEP_FIELDS), (self.evaluations, EVAL_FIELDS)):
            # A row may be there already: a resumed run measures some steps again, and an evaluation shares its row with
            # the step before it. So only the fields of this kind are written over.
            Point.objects.bulk_create(
                points.values(), update_conflicts=True, unique_fields=["task", "step"], update_fields=fields
            )
        LogLine.objects.bulk_create(self.lines)

    def clear(self) -> None:
        super().clear()
        self.steps = {}
        self.evaluations = {}
        self.lines = []
