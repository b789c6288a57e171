"""The abstract row of a task: queue, lease, progress and result. The database is the truth; Redis carries ids only."""

import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from django.apps import apps
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from web.errors import ConflictError
from web.sentences import translate_packed

log = logging.getLogger(__name__)
Translated: TypeAlias = str | Promise

# The stages that every kind of task has.
QUEUED = "queued"
PREPARING = "preparing"


class WrongStateError(ConflictError):
    code = "task_wrong_state"
    message = _("This task has already ended, or another worker has started it. Nothing was changed.")


class Status(models.TextChoices):
    PENDING = "PENDING", _("queued")
    STARTED = "STARTED", _("running")
    SUCCESS = "SUCCESS", _("done")
    FAILURE = "FAILURE", _("failed")
    CANCELLED = "CANCELLED", _("cancelled")


ENDED = (Status.SUCCESS, Status.FAILURE, Status.CANCELLED)

KILLED = _(
    "The process was killed, probably because memory ran out (SIGKILL, peak {peak:.0f} MiB). The task will be retried."
)


@dataclass(frozen=True, slots=True)
class JobMessages:
    """The messages of one kind of task to its owner. `*_kept` and `*_next` become `kept` and `next` of `Work.error`."""

    error_kept: Translated  # what is still there after an error
    known_error_next: Translated  # what to do after an error that has a code
    unexpected_error_next: Translated
    worker_lost_kept: Translated  # after too many workers died at the same step
    worker_lost_next: Translated
    cancelled: Translated
    worker_stopping: Translated  # the task is saved and goes back to the queue
    worker_gone: Translated  # the lease ran out and the task goes back to the queue
    process_killed: Translated = KILLED  # formatted with {peak} in MiB
    error_kept_by_code: dict[str, Translated] = field(default_factory=dict)  # replaces `error_kept` for these codes


class Work(models.Model):
    """A task. Each kind of task is a subclass; queue, lease, reconciler and worker serve all of them."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.PENDING, db_index=True)

    # Queue: outbox, lease and fencing token.
    sent_at = models.DateTimeField(null=True)  # empty until Redis has the id
    attempt = models.PositiveIntegerField(default=0)  # counts starts; every write of a worker says WHERE attempt = mine
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=100, blank=True)
    cancel_requested = models.BooleanField(default=False)
    deaths = models.PositiveIntegerField(default=0)  # workers lost at `death_step`; the third makes the task fail
    death_step = models.PositiveIntegerField(default=0)

    # Progress, as the worker last wrote it.
    stage = models.CharField(max_length=10, default=QUEUED)
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    eta_seconds = models.FloatField(null=True)

    result = models.JSONField(null=True)
    error = models.JSONField(
        null=True
    )  # {code, message, kept, next}; `sentence` is the message as engine.sentences packs it
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    queue: ClassVar[F | Value]  # name of the queue as SQL: a field of the row, or a constant
    startable: ClassVar[Q] = Q(status=Status.PENDING)  # rows that a worker could start now
    job: ClassVar[str]  # dotted name of the function that a worker calls with the id
    messages: ClassVar[JobMessages]

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    @property
    def queue_name(self) -> str:
        """Return the value of `queue` for this row. Each worker serves one queue."""
        if isinstance(self.queue, Value):
            return str(self.queue.value)
        return str(getattr(self, self.queue.name))  # type: ignore[attr-defined]  # django-stubs lack it

    @property
    def finished(self) -> bool:
        return self.status in ENDED

    @property
    def explained_error(self) -> dict[str, Any] | None:
        """Return `error` in the language of the reader, as pages and the API show it; None without one."""
        if self.error is None:
            return None
        details = {name: value for name, value in self.error.items() if name != "sentence"}
        details["message"] = translate_packed(self.error.get("sentence"), details["message"])
        return details | {name: translate_packed(None, details.get(name, "")) for name in ("kept", "next")}

    @property
    def can_resume(self) -> bool:
        return self.status in (Status.CANCELLED, Status.FAILURE)

    @property
    def percent(self) -> int:
        """Return the share of steps that are done; 100 only after success, since evaluation and saving come after the steps."""
        if self.status == Status.SUCCESS:
            return 100
        if not self.total_steps:
            return 0
        done = int(100 * self.step / self.total_steps)
        return min(99, done)

    def move(self, to: Status, *, frm: Collection[Status], attempt: int | None = None, **changes: Any) -> None:
        """Change the status, and `changes` with it; raise WrongStateError if the row is not in one of the statuses `frm`.

        With `attempt`, also raise WrongStateError unless the row is still in that attempt. No other code changes a status.
        """
        row = type(self)._default_manager.filter(pk=self.pk, status__in=list(frm))
        if attempt is not None:
            row = row.filter(attempt=attempt)
        if to == Status.STARTED:
            changes["attempt"] = F("attempt") + 1
        # One conditional UPDATE: of several workers that try at once, one sees a row count of 1.
        if not row.update(status=to, **changes):
            raise WrongStateError(task_id=str(self.pk))
        self.refresh_from_db()

    def cancel(self) -> None:
        """End a waiting task now and request that a running one stops; raise WrongStateError if it has ended.

        The worker of a running task looks for the request after each step, saves the place and ends the task.
        """
        running = type(self)._default_manager.filter(pk=self.pk, status=Status.STARTED)
        if running.update(cancel_requested=True):
            self.refresh_from_db()
        else:
            self.move(Status.CANCELLED, frm=[Status.PENDING], ended_at=Now())

    def queue_again(self) -> None:
        """Put a failed or cancelled task back in the queue and forget its deaths."""
        self.move(
            Status.PENDING,
            frm=[Status.FAILURE, Status.CANCELLED],
            stage=QUEUED,
            sent_at=None,
            cancel_requested=False,
            deaths=0,
            death_step=0,
            error=None,
            ended_at=None,
        )

    def within_limit(self) -> bool:
        """Return whether the owner may have one more task of this kind sent; if not, the reconciler tries again later."""
        return True

    def note(self, level: str, text: str) -> None:
        """Log what happened to the task; a kind of task with a log that its owner sees overrides this."""
        log.info("%s %s: %s", self._meta.verbose_name, self.pk, text)


def task_kinds() -> list[type[Work]]:
    """Return every kind of task that the installed apps define."""
    return [model for model in apps.get_models() if issubclass(model, Work)]
