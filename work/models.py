"""The life of anything that a worker carries out. The database is the truth; Redis carries ids (docs/reliability.md)."""

import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.apps import apps
from django.db import models
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from web.errors import Conflict

log = logging.getLogger(__name__)
QUEUED, PREPARING = "queued", "preparing"  # the stages that every kind of work has


class WrongState(Conflict):
    code = "task_wrong_state"
    message = _("This task has already ended or been taken; nothing was changed.")


class Status(models.TextChoices):
    PENDING = "PENDING", _("queued")
    STARTED = "STARTED", _("running")
    SUCCESS = "SUCCESS", _("done")
    FAILURE = "FAILURE", _("failed")
    CANCELLED = "CANCELLED", _("cancelled")


ENDED = (Status.SUCCESS, Status.FAILURE, Status.CANCELLED)


KILLED = _(
    "The system killed the process, as it does when memory runs out (SIGKILL); its peak was {peak:.0f} MiB. It is tried again."
)


@dataclass(frozen=True, slots=True)
class Words:
    """What one kind of work tells its person when it does not simply end well; each a translated sentence."""

    kept: Any  # after an error: what is still there
    after_known: Any  # what to do after an error that the code knows
    after_unforeseen: Any
    kept_by_lost: Any  # when workers died on it again and again
    after_lost: Any
    cancelled: Any
    given_back: Any  # the worker stops and the work goes on elsewhere
    taken_back: Any  # its worker is gone
    killed: Any = KILLED  # by the system, with {peak} in MiB
    kept_after: dict[str, Any] = field(default_factory=dict)  # instead of `kept`, by the error's code


class Work(models.Model):
    """One row per piece of work. A kind of work is a subclass; queue, lease, reconciler and worker serve every kind."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.PENDING, db_index=True)

    # the queue: outbox, lease and fencing token
    sent_at = models.DateTimeField(null=True)  # empty until Redis has the id
    attempt = models.PositiveIntegerField(default=0)  # counts starts; every write of a worker says WHERE attempt = mine
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=100, blank=True)
    cancel_requested = models.BooleanField(default=False)
    deaths = models.PositiveIntegerField(default=0)  # workers lost at `death_step`; the third sets the work aside
    death_step = models.PositiveIntegerField(default=0)

    # progress, as the worker last wrote it
    stage = models.CharField(max_length=10, default=QUEUED)
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    eta_seconds = models.FloatField(null=True)

    result = models.JSONField(null=True)
    error = models.JSONField(null=True)  # {code, message, kept, next}
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    queue: ClassVar[Combinable]  # `queue_name` in SQL
    job: ClassVar[str]  # dotted name of the function that a worker calls with the id
    words: ClassVar[Words]

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    @property
    def queue_name(self) -> str:
        """The queue that it waits in; each worker serves one."""
        raise NotImplementedError

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
        same = type(self)._default_manager.filter(pk=self.pk, status__in=list(frm), **where)
        if not same.update(status=to, **changes):
            raise WrongState(task_id=str(self.pk))
        self.refresh_from_db()

    def cancel(self) -> None:
        """Waiting work ends at once, work that is going on as soon as it looks; WrongState where it has ended."""
        going_on = type(self)._default_manager.filter(pk=self.pk, status=Status.STARTED)
        if going_on.update(cancel_requested=True):
            self.refresh_from_db()
        else:
            self.move(Status.CANCELLED, frm=[Status.PENDING], ended_at=Now())

    def queue_again(self) -> None:
        """What failed or was cancelled waits once more, as if nobody had died on it."""
        fresh = {"stage": QUEUED, "sent_at": None, "cancel_requested": False, "deaths": 0, "death_step": 0}
        self.move(Status.PENDING, frm=[Status.FAILURE, Status.CANCELLED], error=None, ended_at=None, **fresh)

    def within_limit(self) -> bool:
        """Whether its person may have one more of its kind sent; else it stays unsent, and the reconciler asks again."""
        return True

    def note(self, level: str, text: str) -> None:
        """What happened to it, for its person; a kind that keeps a log writes it there."""
        log.info("%s %s: %s", self._meta.verbose_name, self.pk, text)


def kinds() -> list[type[Work]]:
    """Every kind of work that the installed apps define."""
    return [model for model in apps.get_models() if issubclass(model, Work)]
