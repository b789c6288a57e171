"""A task's life. The database is the truth; Redis carries ids. docs/reliability.md gives the reasons."""

import uuid
from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.errors import Conflict


class WrongState(Conflict):
    code = "task_wrong_state"
    message = _("This task has already ended or been taken; nothing was changed.")


class Status(models.TextChoices):
    PENDING = "PENDING", _("queued")
    STARTED = "STARTED", _("running")
    SUCCESS = "SUCCESS", _("done")
    FAILURE = "FAILURE", _("failed")
    CANCELLED = "CANCELLED", _("cancelled")


class Stage(models.TextChoices):
    QUEUED = "queued", _("queued")
    PREPARING = "preparing", _("preparing")
    TRAINING = "training", _("training")
    EVALUATING = "evaluating", _("evaluating")
    SAVING = "saving", _("saving")
    DONE = "done", _("done")


ENDED = (Status.SUCCESS, Status.FAILURE, Status.CANCELLED)


class Task(models.Model):
    shared_through = "experiment"  # whose owner and shares decide who sees the run

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="tasks")
    experiment = models.OneToOneField("experiments.Experiment", models.CASCADE, related_name="task")
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.PENDING, db_index=True)
    device_kind = models.CharField(max_length=5, default="cpu")  # the queue that it waits in

    # the queue: outbox, lease and fencing token
    sent_at = models.DateTimeField(null=True)  # empty until Redis has the id
    attempt = models.PositiveIntegerField(default=0)  # counts starts; every write of a worker says WHERE attempt = mine
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=100, blank=True)
    cancel_requested = models.BooleanField(default=False)
    deaths = models.PositiveIntegerField(default=0)  # workers lost at `death_step`; the third sets the task aside
    death_step = models.PositiveIntegerField(default=0)

    # progress, as the worker last wrote it
    stage = models.CharField(_("stage"), max_length=10, choices=Stage.choices, default=Stage.QUEUED)
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    epoch = models.FloatField(default=0)
    loss = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    eta_seconds = models.FloatField(null=True)
    facts = models.JSONField(default=dict)  # the engine's Prepared event: device, precision, rows, labels, …

    result = models.JSONField(null=True)
    error = models.JSONField(null=True)  # {code, message, kept, next}
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.experiment.name} ({self.status})"

    @property
    def finished(self) -> bool:
        return self.status in ENDED

    @property
    def can_resume(self) -> bool:
        return self.status in (Status.CANCELLED, Status.FAILURE)

    @property
    def percent(self) -> int:
        if self.status == Status.SUCCESS:
            return 100
        return min(99, int(100 * self.step / self.total_steps)) if self.total_steps else 0

    def move(self, to: Status, *, frm: Collection[Status], **changes: Any) -> None:
        """The only way a status changes: one conditional UPDATE whose row count is the answer."""
        where: dict[str, Any] = {"attempt": changes.pop("held_attempt")} if "held_attempt" in changes else {}
        if not Task.objects.filter(pk=self.pk, status__in=list(frm), **where).update(status=to, **changes):
            raise WrongState(task_id=str(self.pk))
        self.refresh_from_db()


class Point(models.Model):
    """One point of the curves: what a step or an evaluation measured."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="points")
    step = models.PositiveIntegerField()
    epoch = models.FloatField()
    loss = models.FloatField(null=True)
    learning_rate = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    cpu_percent = models.FloatField(null=True)
    memory_mb = models.FloatField(null=True)
    gpu_memory_mb = models.FloatField(null=True)
    eval_loss = models.FloatField(null=True)
    accuracy = models.FloatField(null=True)
    macro_f1 = models.FloatField(null=True)

    class Meta:
        ordering = ["step"]
        constraints = [models.UniqueConstraint(fields=["task", "step"], name="one_point_per_step")]


class LogLine(models.Model):
    task = models.ForeignKey(Task, models.CASCADE, related_name="log")
    at = models.DateTimeField()
    level = models.CharField(max_length=8, default="info")
    text = models.CharField(max_length=1000)

    class Meta:
        ordering = ["pk"]
