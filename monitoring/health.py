"""Readiness checks. Each gives its reason in words; none reveals a name or an address of the inside, since anyone may read them."""

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from work import queue
from work.paths import data_dir, results_dir

from .models import Worker

ALIVE = timedelta(seconds=45)  # a worker reports every ten seconds, so it has missed four reports after this time

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State  # warning: it works, but needs attention soon; error: not ready
    reason: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of DATA_DIR or RESULTS_DIR; sizes in bytes."""

    place: str
    size: int
    free: int

    @property
    def used(self) -> int:
        return self.size - self.free

    @property
    def state(self) -> State:
        """Return "error" below MIN_FREE_DISK, and "warning" below five times of it."""
        if self.free < settings.MIN_FREE_DISK:
            return "error"
        if self.free < 5 * settings.MIN_FREE_DISK:
            return "warning"
        return "ok"


def checks(only: Collection[str] = ()) -> list[Check]:
    """Run all checks, or those named in `only`, in their order.

    A check reports what fails and raises nothing. A name in `only` that is no check is ignored.
    """
    results = []
    for name, check in CHECKS.items():
        if not only or name in only:
            results.append(check())
    return results


def is_ready(results: list[Check]) -> bool:
    return all(check.state != "error" for check in results)


def database() -> Check:
    started = time.perf_counter()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        connection.close()
        return Check("database", "error", _("The database does not answer, so nothing can be shown or stored."))
    milliseconds = (time.perf_counter() - started) * 1000
    return Check("database", "ok", _("Answers in %(time).1f ms.") % {"time": milliseconds})


def redis_server() -> Check:
    try:
        with queue.connect(timeout=1) as client:
            client.ping()
    except redis.RedisError:
        reason = _("Redis does not answer. Runs are accepted and wait in the database until it is back.")
        return Check("redis", "error", reason)
    return Check("redis", "ok", _("Answers."))


def disk() -> Check:
    fullest = min(disks(), key=lambda one: one.free)
    sizes = {"free": filesizeformat(fullest.free), "size": filesizeformat(fullest.size), "place": fullest.place}
    reason = _("%(free)s of %(size)s are free under %(place)s.") % sizes
    if fullest.state == "warning":
        reason += " " + _("The disk is nearly full: delete experiments that nobody needs, or make room.")
    elif fullest.state == "error":
        reason += " " + _("The disk is full: uploads and checkpoints are about to fail. Make room.")
    return Check("disk", fullest.state, reason)


def disks() -> list[Disk]:
    """Return the file systems of data and results; one entry if both are on the same one."""
    by_device: dict[int, Disk] = {}
    for place, folder in (("DATA_DIR", data_dir()), ("RESULTS_DIR", results_dir())):
        # The folder may not exist yet; then its parent's file system is the one that will hold it.
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        usage = shutil.disk_usage(existing)
        by_device.setdefault(existing.stat().st_dev, Disk(place, usage.total, usage.free))
    return list(by_device.values())


def workers() -> Check:
    try:
        alive = living_workers().count()
        last = None if alive else Worker.objects.order_by("-seen_at").first()
    except DatabaseError:
        connection.close()
        return Check("workers", "error", _("Unknown while the database does not answer."))
    if alive:
        reason = ngettext("%(n)d worker is alive.", "%(n)d workers are alive.", alive) % {"n": alive}
        return Check("workers", "ok", reason)
    if last:
        reason = _("The last worker was seen at %(time)s (UTC). Runs wait until one is back.")
        return Check("workers", "error", reason % {"time": f"{last.seen_at:%Y-%m-%d %H:%M:%S}"})
    return Check("workers", "error", _("No worker is running, so runs wait. Start one: manage.py worker."))


def living_workers() -> QuerySet[Worker]:
    """Return the workers that reported lately, by the database's clock."""
    return Worker.objects.filter(seen_at__gte=Now() - ALIVE)


CHECKS: dict[str, Callable[[], Check]] = {
    "database": database,
    "redis": redis_server,
    "disk": disk,
    "workers": workers,
}
