"""Put unfinished tasks back in the queue: those that Redis never got or lost, and those that no living worker holds.

Runs in every worker at its start and every few seconds, over every kind of task. Any number may run at once, because
each change is one conditional UPDATE.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models.functions import Now

from engine.sentences import Sentence, gettext_noop

from . import queue
from .models import QUEUED, Status, Work, WrongStateError, task_kinds

log = logging.getLogger(__name__)
DEATHS_ALLOWED = 3


@dataclass(eq=False)
class Clock:
    """Detect by this process's monotonic clock that the database's clock was moved, or that the machine slept.

    After either, every lease looks expired although its holder is alive and will renew it in a moment.
    """

    offset: float | None = None  # of the database's clock to ours, in seconds
    trusted_from: float = float("-inf")

    def is_trusted(self) -> bool:
        database_time = ContentType.objects.values_list(Now(), flat=True).first()  # a table that is never empty
        here = time.monotonic()
        previous = self.offset
        if database_time is not None:
            self.offset = database_time.timestamp() - here
            # A smaller jump expires no lease: a holder renews it after a quarter of LEASE_SECONDS.
            if previous is not None and abs(self.offset - previous) > settings.LEASE_SECONDS / 2:
                log.warning("The clock was moved by %.0f s; leases get time to be renewed.", self.offset - previous)
                self.trusted_from = here + settings.LEASE_SECONDS
        return here >= self.trusted_from


clock = Clock()


def reconcile() -> dict[str, int]:
    """Do one round; return how many tasks were taken back, sent and sent again."""
    counts = {"taken_back": take_back_abandoned(), "sent": 0, "sent_again": 0}
    # These include tasks above their owner's limit, which `send` leaves waiting.
    counts["sent"] = sum(queue.send(type(task), task.pk) for task in _pending_tasks(sent_at=None))
    sent_before = _pending_tasks(sent_at__lt=Now() - queue.RESEND_AFTER)
    if not sent_before:
        return counts
    try:
        with queue.connect() as connection:
            waiting: set[str] = set()
            for name in {task.queue_name for task in sent_before}:
                waiting.update(queue.rq_queue(name, connection).job_ids)
            lost = [t for t in sent_before if queue.job_id(t) not in waiting and queue.is_lost(t, connection)]
        counts["sent_again"] = sum(queue.send(type(task), task.pk) for task in lost)
    except redis.RedisError as error:
        log.warning("Redis is away (%s); waiting tasks stay in the database until it is back.", error)
    return counts


def _pending_tasks(**where: object) -> list[Work]:
    """Return waiting tasks of every kind, the oldest of each kind first."""
    tasks: list[Work] = []
    for kind in task_kinds():
        tasks += kind._default_manager.filter(status=Status.PENDING, **where).order_by("created_at")
    return tasks


def take_back_abandoned() -> int:
    """Put running tasks whose lease has expired back in the queue, or fail them; return how many."""
    abandoned: list[Work] = []
    for kind in task_kinds():
        abandoned += kind._default_manager.filter(status=Status.STARTED, lease_until__lt=Now())
    if not clock.is_trusted():  # checked last: the clock may have been moved just before the query above
        return 0
    return sum(map(take_back, abandoned))


def take_back(task: Work) -> bool:
    """End a dead attempt: queue the task again, cancel it if that was requested, or fail it after too many deaths.

    Return False if its worker has renewed the lease meanwhile. Whatever the dead attempt still writes says
    `WHERE attempt = old AND status = STARTED` and changes no row.
    """
    # A task that got further than at its last death starts counting anew: it is not the task that kills its workers.
    deaths = task.deaths + 1 if task.step <= task.death_step or not task.deaths else 1
    changes: dict[str, Any] = {
        "deaths": deaths,
        "death_step": max(task.step, task.death_step),
        "lease_until": None,
        "worker": "",
    }
    try:
        with transaction.atomic():
            row = type(task)._default_manager.select_for_update()
            if not row.filter(pk=task.pk, attempt=task.attempt, lease_until=task.lease_until).exists():
                return False
            end_dead_attempt(task, deaths, changes)
    except WrongStateError:
        return False
    return True


def end_dead_attempt(task: Work, deaths: int, changes: dict[str, Any]) -> None:
    """Move the task out of STARTED and tell its owner; `changes` are written with the new status."""
    running = [Status.STARTED]
    if task.cancel_requested:
        task.move(Status.CANCELLED, frm=running, attempt=task.attempt, ended_at=Now(), **changes)
    elif deaths >= DEATHS_ALLOWED:
        message = Sentence(
            gettext_noop("The worker died {count} times near step {step}, so this task will not be retried."),
            count=deaths,
            step=task.step,
        )
        error = {
            "code": "worker_lost",
            "message": message,
            "sentence": message.pack(),
            "kept": str(task.messages.worker_lost_kept),
            "next": str(task.messages.worker_lost_next),
        }
        task.move(Status.FAILURE, frm=running, attempt=task.attempt, ended_at=Now(), error=error, **changes)
        task.note(
            "error", Sentence(gettext_noop("Failed: the worker died {count} times at the same step."), count=deaths)
        )
    else:
        task.move(Status.PENDING, frm=running, attempt=task.attempt, sent_at=None, stage=QUEUED, **changes)
        task.note("warning", Sentence(str(task.messages.worker_gone)))
