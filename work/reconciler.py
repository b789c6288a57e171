"""Puts back what is unfinished: what Redis never got or lost, and what no living worker holds.

Runs in every worker at its start and every few seconds, over every kind of work; any number may run at once, because
each change is one conditional UPDATE.
"""

import logging
import time
from typing import Any

import redis
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from . import queue
from .models import QUEUED, Status, Work, WrongState, kinds

log = logging.getLogger(__name__)
DEATHS_ALLOWED = 3


class Clock:
    """Tells by this process's monotonic clock whether the database's was moved, or the machine slept.

    Every lease then looks run out, though its holder is alive and renews it in a moment.
    """

    def __init__(self) -> None:
        self.ahead: float | None = None  # of the database's clock before ours, in seconds
        self.trusted_from = float("-inf")

    def is_trusted(self) -> bool:
        there = ContentType.objects.values_list(Now(), flat=True).first()  # a table that is never empty
        here, before = time.monotonic(), self.ahead
        if there is not None:
            self.ahead = there.timestamp() - here
            if before is not None and abs(self.ahead - before) > settings.LEASE_SECONDS / 2:
                log.warning("The clock was moved by %.0f s; leases get time to be renewed.", self.ahead - before)
                self.trusted_from = here + settings.LEASE_SECONDS
        return here >= self.trusted_from


clock = Clock()


def reconcile() -> dict[str, int]:
    """One round; the counts of what was taken back, sent and sent again."""
    counts = {"taken_back": take_back_abandoned(), "sent": 0, "sent_again": 0}
    counts["sent"] = sum(queue.send(type(task), task.pk) for task in _pending(sent_at=None))
    try:
        counts["sent_again"] = sum(queue.send(type(task), task.pk) for task in lost_in_redis())
    except redis.RedisError as error:
        log.warning("Redis is away (%s); waiting tasks stay in the database until it is back.", error)
    return counts


def _pending(**where: object) -> list[Work]:
    found = (kind._default_manager.filter(status=Status.PENDING, **where).order_by("created_at") for kind in kinds())
    return [task for tasks in found for task in tasks]


def lost_in_redis() -> list[Work]:
    """Work that was sent a while ago, waits no more in Redis and was not started."""
    tasks = _pending(sent_at__lt=Now() - queue.RESEND_AFTER)
    if not tasks:
        return []
    with queue.connect() as connection:
        there = queue.waiting({t.queue_name for t in tasks}, connection)
        return [t for t in tasks if queue.job_id(t) not in there and queue.is_lost(t, connection)]


def take_back_abandoned() -> int:
    """STARTED work whose lease ran out by the database's clock goes back to the queue, or is set aside."""
    where = {"status": Status.STARTED, "lease_until__lt": Now()}
    found = [task for kind in kinds() for task in kind._default_manager.filter(**where)]
    if not clock.is_trusted():  # asked last: it may have been moved just before we looked
        return 0
    return sum(map(take_back, found))


def take_back(task: Work) -> bool:
    """Fence the attempt that died: what it still writes says `WHERE attempt = old AND status = STARTED`: no row."""
    deaths = task.deaths + 1 if task.step <= task.death_step or not task.deaths else 1
    counted: dict[str, Any] = {
        "deaths": deaths,
        "death_step": max(task.step, task.death_step),
        "lease_until": None,
        "worker": "",
    }
    try:
        with transaction.atomic():
            _still_abandoned(task)
            _return(task, deaths, counted)
    except WrongState:
        return False
    return True


def _still_abandoned(task: Work) -> None:
    """Its worker may have renewed the lease since we looked."""
    same = type(task)._default_manager.select_for_update()
    if not same.filter(pk=task.pk, attempt=task.attempt, lease_until=task.lease_until).exists():
        raise WrongState


def _return(task: Work, deaths: int, counted: dict[str, Any]) -> None:
    held: dict[str, Any] = {"frm": [Status.STARTED], "held_attempt": task.attempt, **counted}
    if task.cancel_requested:
        task.move(Status.CANCELLED, ended_at=Now(), **held)
    elif deaths >= DEATHS_ALLOWED:
        task.move(Status.FAILURE, ended_at=Now(), error=_worker_lost(task, deaths), **held)
        task.note("error", _("Set aside: the worker died {count} times at the same place.").format(count=deaths))
    else:
        task.move(Status.PENDING, sent_at=None, stage=QUEUED, **held)
        task.note("warning", str(task.words.taken_back))


def _worker_lost(task: Work, deaths: int) -> dict[str, str]:
    return {
        "code": "worker_lost",
        "message": _("The worker died {count} times near step {step}, so this task was set aside.").format(
            count=deaths, step=task.step
        ),
        "kept": str(task.words.kept_by_lost),
        "next": str(task.words.after_lost),
    }
