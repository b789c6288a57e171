"""Training runs as tasks of the queue, with their curves and logs. `work.models.Work` has what all tasks share."""

import logging
from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.quotas import limit_of
from notifications.models import Event
from notifications.services import announce
from web.sentences import pack, translate_packed
from work.models import ENDED, PREPARING, QUEUED, Status, Work, WrongStateError

from .wording import MESSAGES, TIMING_MESSAGES

log = logging.getLogger(__name__)

__all__ = ["ENDED", "LogLine", "Point", "Stage", "Status", "Task", "Timing", "WrongStateError"]


class Stage(models.TextChoices):
    QUEUED = QUEUED, _("queued")
    PREPARING = PREPARING, _("preparing")
    TRAINING = "training", _("training")
    EVALUATING = "evaluating", _("evaluating")
    SAVING = "saving", _("saving")
    DONE = "done", _("done")


class Task(Work):
    """A training run."""

    shared_through = "experiment"  # whose owner and shares decide who sees the run

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="tasks")
    experiment = models.OneToOneField("experiments.Experiment", models.CASCADE, related_name="task")
    device_kind = models.CharField(max_length=5, default="cpu")  # names the queue

    # Progress, beyond what every task has.
    stage = models.CharField(_("stage"), max_length=10, choices=Stage.choices, default=Stage.QUEUED)
    epoch = models.FloatField(default=0)
    loss = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    facts = models.JSONField(default=dict)  # the engine's Prepared event: device, precision, rows, labels, …
    # The engine's Notice events of all attempts, {level, code, message}, each once; the log would scroll them away.
    notices = models.JSONField(default=list, db_default=[])
    # The estimate, if there was one: {seconds, memory_mb}, with took_seconds and took_mb once the run has succeeded.
    foreseen = models.JSONField(null=True)

    queue = models.F("device_kind")
    job = "training.jobs.run"  # waits in Redis by this name, also across releases
    messages = MESSAGES

    def __str__(self) -> str:
        return f"{self.experiment.name} ({self.status})"

    def within_limit(self) -> bool:
        allowed = limit_of(self.owner, "running")
        if allowed is None:
            return True
        others = Task.objects.filter(owner=self.owner).exclude(pk=self.pk)
        # A task that was sent counts too: a worker may start it at any moment.
        sent = models.Q(status=Status.STARTED) | models.Q(status=Status.PENDING, sent_at__isnull=False)
        return others.filter(sent).count() < allowed

    def move(self, to: Status, *, frm: Collection[Status], attempt: int | None = None, **changes: Any) -> None:
        """Also tell the owner of a run that ends, but not of one that somebody has cancelled."""
        with transaction.atomic():  # so that the message is stored if, and only if, the run has ended
            super().move(to, frm=frm, attempt=attempt, **changes)
            if to in (Status.SUCCESS, Status.FAILURE):
                self.announce_end()

    def announce_end(self) -> None:
        """Queue the messages to the owner that this attempt has ended. They contain no text of a row and of no error."""
        experiment = self.experiment
        event = Event.FAILED
        if self.status == Status.SUCCESS:
            event = Event.NOT_LEARNED if experiment.learned is False else Event.FINISHED
        facts = {
            "task_id": str(self.pk),
            "name": experiment.name,
            "path": reverse("training:run", args=[self.pk]),
            "dataset": experiment.dataset_name,
            "base_model": experiment.base_model,
            "score": None if experiment.score is None else {"name": experiment.score_name, "value": experiment.score},
            "error": (self.error or {}).get("code"),
        }
        announce(owner=self.owner, event=event, key=f"{self.pk}:{self.attempt}:{self.status}", facts=facts)

    def note(self, level: str, text: str) -> None:
        """Add a line to the run's log, in the database and in logs.txt."""
        line = LogLine.of(self, level, text)
        line.save()
        try:  # logs.txt is a copy for people: a disk that refuses it must not end the run
            self.experiment.folder.mkdir(parents=True, exist_ok=True)
            with open(self.experiment.folder / "logs.txt", "a", encoding="utf-8") as file:
                file.write(f"{line.at:%Y-%m-%d %H:%M:%S} {line.text}\n")
        except OSError as error:
            log.warning("logs.txt of %s could not be written: %s", self.experiment.name, error)


class Timing(Work):
    """A short benchmark of a run, cached by the settings that affect speed or memory and used by everybody's estimates."""

    passing = True  # its owner's alone: never shared, never handed over

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    version = models.ForeignKey("datasets_app.Version", models.CASCADE, null=True, related_name="+")
    key = models.CharField(max_length=64, unique=True)  # hash of the settings that affect it
    config = models.JSONField()
    device_kind = models.CharField(max_length=5, default="cpu")  # names the queue

    queue = models.F("device_kind")
    job = "training.jobs.measure"  # waits in Redis by this name, also across releases
    messages = TIMING_MESSAGES

    def __str__(self) -> str:
        return f"{self.version} ({self.status})"


class Point(models.Model):
    """One point of the curves: the measurements of a step, an evaluation, or both."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="points")
    step = models.PositiveIntegerField()
    epoch = models.FloatField()
    # Of all training steps so far; null in rows of earlier releases.
    tokens = models.PositiveBigIntegerField(null=True)
    runtime_s = models.FloatField(null=True)
    loss = models.FloatField(null=True)  # mean since the point before; earlier releases stored that of the step alone
    learning_rate = models.FloatField(null=True)
    grad_norm = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    cpu_percent = models.FloatField(null=True)
    memory_mb = models.FloatField(null=True)
    gpu_memory_mb = models.FloatField(null=True)
    eval_loss = models.FloatField(null=True)
    accuracy = models.FloatField(null=True)
    macro_f1 = models.FloatField(null=True)
    scores = models.JSONField(default=dict, db_default={})  # all metrics of an evaluation; empty in older rows
    answers = models.JSONField(default=list, db_default=[])  # of an evaluation: [{prompt, expected, written}, …]

    class Meta:
        ordering = ["step"]
        constraints = [models.UniqueConstraint(fields=["task", "step"], name="one_point_per_step")]

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics of the evaluation at this step; empty if there was none."""
        columns = {"loss": self.eval_loss, "accuracy": self.accuracy, "macro_f1": self.macro_f1}
        return {name: value for name, value in (columns | self.scores).items() if value is not None}


class LogLine(models.Model):
    task = models.ForeignKey(Task, models.CASCADE, related_name="log")
    at = models.DateTimeField()
    level = models.CharField(max_length=8, default="info")
    text = models.CharField(max_length=1000)
    sentence = models.JSONField(null=True)  # template and arguments of the text; see engine.sentences

    class Meta:
        ordering = ["pk"]

    @classmethod
    def of(cls, task: Task, level: str, text: str) -> "LogLine":
        """Return a line that is not stored yet."""
        return cls(task=task, at=timezone.now(), level=level, text=text[:1000], sentence=pack(text))

    @property
    def words(self) -> str:
        """Return the text in the language of the reader."""
        return translate_packed(self.sentence, self.text)
