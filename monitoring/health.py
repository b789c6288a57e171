"""Is the installation ready, and if not, why: each check with its reason in words, none with a name or an address of the inside."""

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

ALIVE = timedelta(seconds=45)  # a worker says every ten seconds that it lives


@dataclass(frozen=True, slots=True)
class Check:
    """`state`: ok, warning (it works, look soon) or error (not ready)."""

    name: str
    state: Literal["ok", "warning", "error"]
    reason: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system under DATA_DIR or RESULTS_DIR, in bytes."""

    place: str
    size: int
    free: int

    @property
    def used(self) -> int:
        return self.size - self.free

    @property
    def state(self) -> Literal["ok", "warning", "error"]:
        if self.free < settings.MIN_FREE_DISK:
            return "error"
        return "warning" if self.free < 5 * settings.MIN_FREE_DISK else "ok"


def checks(only: Collection[str] = ()) -> list[Check]:
    """All checks, or those that are named, in their order."""
    return [check() for name, check in CHECKS.items() if not only or name in only]


def is_ready(found: list[Check]) -> bool:
    return all(check.state != "error" for check in found)


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
        said = _("Redis does not answer. Runs are accepted and wait in the database until it is back.")
        return Check("redis", "error", said)
    return Check("redis", "ok", _("Answers."))


def disk() -> Check:
    fullest = min(disks(), key=lambda found: found.free)
    facts = {"free": filesizeformat(fullest.free), "size": filesizeformat(fullest.size), "place": fullest.place}
    said = _("%(free)s of %(size)s are free under %(place)s.") % facts
    if fullest.state == "warning":
        said += " " + _("The disk is nearly full: delete experiments that nobody needs, or make room.")
    elif fullest.state == "error":
        said += " " + _("The disk is full: uploads and checkpoints are about to fail. Make room.")
    return Check("disk", fullest.state, said)


def disks() -> list[Disk]:
    """Where data and results lie; one entry where both lie on one file system."""
    found: dict[int, Disk] = {}
    for place, folder in (("DATA_DIR", data_dir()), ("RESULTS_DIR", results_dir())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usage = shutil.disk_usage(there)
        found.setdefault(there.stat().st_dev, Disk(place, usage.total, usage.free))
    return list(found.values())


def workers() -> Check:
    try:
        alive = living_workers().count()
        last = None if alive else Worker.objects.order_by("-seen_at").first()
    except DatabaseError:
        connection.close()
        return Check("workers", "error", _("Not known while the database does not answer."))
    if alive:
        said = ngettext("%(n)d worker is alive.", "%(n)d workers are alive.", alive) % {"n": alive}
        return Check("workers", "ok", said)
    if last:
        said = _("The last worker was seen at %(time)s (UTC). Runs wait until one is back.")
        return Check("workers", "error", said % {"time": f"{last.seen_at:%Y-%m-%d %H:%M:%S}"})
    return Check("workers", "error", _("No worker is there, so runs wait. Start one: manage.py worker."))


def living_workers() -> QuerySet[Worker]:
    return Worker.objects.filter(seen_at__gte=Now() - ALIVE)


CHECKS: dict[str, Callable[[], Check]] = {
    "database": database,
    "redis": redis_server,
    "disk": disk,
    "workers": workers,
}
