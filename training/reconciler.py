"""Puts back what is unfinished: what Redis never got or lost, and what no living worker holds.

Runs in every worker at its start and every few seconds; any number may run at once, because each change is one
conditional UPDATE.
"""

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from . import lease, queue
from .models import Stage, Status, Task, WrongState

log = logging.getLogger(__name__)
RESEND_AFTER = timedelta(seconds=10)  # a sender may need so long between its claim and Redis
DEATHS_ALLOWED = 3


def reconcile() -> dict[str, int]:
    """One round; the counts of what was taken back, sent and sent again."""
    counts = {"taken_back": take_back_abandoned(), "sent": 0, "sent_again": 0}
    counts["sent"] = sum(queue.send(pk) for pk in _pending(sent_at=None))
    try:
        counts["sent_again"] = sum(queue.send(task.pk) for task in lost_in_redis())
    except redis.RedisError as error:
        log.warning("Redis is away (%s); waiting tasks stay in the database until it is back.", error)
    return counts


def _pending(**where: object) -> list[UUID]:
    return list(Task.objects.filter(status=Status.PENDING, **where).order_by("created_at").values_list("pk", flat=True))


def lost_in_redis() -> list[Task]:
    """Tasks that were sent a while ago, wait no more in Redis and were not started."""
    old = Task.objects.filter(status=Status.PENDING, sent_at__lt=Now() - RESEND_AFTER).order_by("created_at")
    tasks = list(old)
    if not tasks:
        return []
    with queue.connect() as connection:
        there = queue.waiting({t.device_kind for t in tasks}, connection)
        return [t for t in tasks if queue.job_id(t) not in there and queue.is_lost(t, connection)]


def take_back_abandoned() -> int:
    """STARTED tasks whose lease ran out by the database's clock go back to the queue, or are set aside."""
    found = Task.objects.filter(status=Status.STARTED, lease_until__lt=Now())
    return sum(take_back(task) for task in found)


def take_back(task: Task) -> bool:
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


def _still_abandoned(task: Task) -> None:
    """Its worker may have renewed the lease since we looked."""
    if not Task.objects.select_for_update().filter(pk=task.pk, attempt=task.attempt, lease_until__lt=Now()).exists():
        raise WrongState


def _return(task: Task, deaths: int, counted: dict[str, Any]) -> None:
    held: dict[str, Any] = {"frm": [Status.STARTED], "held_attempt": task.attempt, **counted}
    if task.cancel_requested:
        task.move(Status.CANCELLED, ended_at=Now(), **held)
    elif deaths >= DEATHS_ALLOWED:
        task.move(Status.FAILURE, ended_at=Now(), error=_worker_lost(task, deaths), **held)
        lease.note(task, "error", _("Set aside: the worker died {count} times at the same place.").format(count=deaths))
    else:
        task.move(Status.PENDING, sent_at=None, stage=Stage.QUEUED, **held)
        lease.note(task, "warning", _("The worker of this run is gone; the run goes back to the queue."))


def _worker_lost(task: Task, deaths: int) -> dict[str, str]:
    return {
        "code": "worker_lost",
        "message": _("The worker died {count} times near step {step}, so this run was set aside.").format(
            count=deaths, step=task.step
        ),
        "kept": _("The log and the checkpoints that were written are kept."),
        "next": _("Look at the log's last lines. With less memory per step (a smaller batch) it may go on: resume it."),
    }
