"""How long a run will take and how much memory, from a few of its own steps; and how far off earlier estimates were."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version as installed
from statistics import median
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from datasets_app.models import Version
from engine.config import RunConfig
from engine.training.estimate import Forecast, Measured, forecast, influences
from web.errors import Conflict
from work import queue

from .models import ENDED, Status, Task, Timing

MOST_AT_ONCE = 3  # measurements of one person that have not ended
RECENT = 50  # estimates whose error is told


@dataclass(frozen=True)
class Estimate:
    """`forecast` is there once the measurement has succeeded."""

    measurement: Timing
    forecast: Forecast | None


@dataclass(frozen=True)
class PastError:
    """Of the last runs that had been estimated: by how much time and memory were off, in the median. 0.1 is 10 %."""

    runs: int
    seconds: float
    memory: float

    @property
    def time_percent(self) -> int:
        return round(100 * self.seconds)

    @property
    def memory_percent(self) -> int:
        return round(100 * self.memory)


def ask(user: User, config: RunConfig, version: Version | None, *, again: bool) -> Estimate:
    """See training.services.estimate."""
    found = Timing.objects.filter(key=_key(config, version)).first()
    if found is None or (again and found.can_resume):
        found = _queue(user, config, version)
    return Estimate(found, _forecast(config, found))


def known(config: RunConfig, version: Version | None) -> dict[str, float] | None:
    """What `Task.foreseen` keeps, where the run has been measured."""
    done = Timing.objects.filter(key=_key(config, version), status=Status.SUCCESS).first()
    found = _forecast(config, done) if done else None
    return {"seconds": found.seconds, "memory_mb": found.memory_mb} if found else None


def with_actual_usage(task: Task, metrics: dict[str, Any]) -> dict[str, float] | None:
    """`foreseen` with what the run took, unless it was interrupted: then it took longer for other reasons."""
    if not task.foreseen or not task.started_at or task.attempt > 1:
        return task.foreseen
    took = (timezone.now() - task.started_at).total_seconds()
    return task.foreseen | {"took_seconds": took, "took_mb": metrics["system"]["peak_memory_mb"]}


def past_error() -> PastError | None:
    rows = Task.objects.filter(status=Status.SUCCESS, foreseen__isnull=False).order_by("-ended_at")
    found: list[Any] = [f for f in rows.values_list("foreseen", flat=True)[:RECENT] if f and "took_seconds" in f]
    if not found:
        return None
    return PastError(
        len(found),
        _off((f["seconds"], f["took_seconds"]) for f in found),
        _off((f["memory_mb"], f["took_mb"]) for f in found),
    )


def _off(pairs: Iterable[tuple[float, float]]) -> float:
    return median(abs(foreseen / took - 1) for foreseen, took in pairs)


def _forecast(config: RunConfig, found: Timing) -> Forecast | None:
    return forecast(config, Measured(**found.result)) if found.result else None


def _key(config: RunConfig, version: Version | None) -> str:
    kept = [field.name for field in fields(Measured)]  # what an earlier release kept may lack some of it
    matters = [influences(config), version.hash if version else None, _device(config), installed("torch"), kept]
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()


def _device(config: RunConfig) -> str:
    return queue.kind_for(config.training.device)


@transaction.atomic
def _queue(user: User, config: RunConfig, version: Version | None) -> Timing:
    User.objects.select_for_update().get(pk=user.pk)  # the limit is counted by one at a time
    if Timing.objects.filter(owner=user).exclude(status__in=ENDED).count() >= MOST_AT_ONCE:
        raise Conflict(_("%d measurements of yours have not ended yet. Wait for one of them.") % MOST_AT_ONCE)
    fresh = {
        "owner": user,
        "version": version,
        "config": config.model_dump(mode="json"),
        "device_kind": _device(config),
    }
    found, new = Timing.objects.get_or_create(key=_key(config, version), defaults=fresh)
    if not new and found.can_resume:
        found.queue_again()
    transaction.on_commit(partial(queue.send, Timing, found.pk))
    return found
