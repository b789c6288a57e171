"""Estimate the time and memory of a run from a few of its own steps, and tell how far off earlier estimates were."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version as installed_version
from statistics import median
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from datasets_app.models import Version
from engine.config import RunConfig
from engine.training.estimate import RunEstimate, RunMeasurement, estimate_run, settings_with_influence
from web.errors import ConflictError
from work import queue

from .models import ENDED, Status, Task, Timing

MOST_AT_ONCE = 3  # unfinished measurements of one person
RECENT = 50  # successful runs that `past_error` looks at


@dataclass(frozen=True)
class Estimate:
    """`forecast` is None until the measurement has succeeded."""

    measurement: Timing
    forecast: RunEstimate | None


@dataclass(frozen=True)
class PastError:
    """Median relative error of the estimates of recent runs, in time and in memory. 0.1 is 10 %."""

    runs: int
    seconds: float
    memory: float

    @property
    def time_percent(self) -> int:
        return round(100 * self.seconds)

    @property
    def memory_percent(self) -> int:
        return round(100 * self.memory)


def request_estimate(user: User, config: RunConfig, version: Version | None, *, again: bool) -> Estimate:
    """Return the estimate of a run; queue a measurement if there is none, or `again` if it failed."""
    timing = Timing.objects.filter(key=cache_key(config, version)).first()
    if timing is None or (again and timing.can_resume):
        timing = queue_measurement(user, config, version)
    return Estimate(timing, forecast_from(timing, config))


def stored_estimate(config: RunConfig, version: Version | None) -> dict[str, float] | None:
    """Return the estimate for `Task.foreseen` if such a run has been measured, else None."""
    timing = Timing.objects.filter(key=cache_key(config, version), status=Status.SUCCESS).first()
    estimated = forecast_from(timing, config) if timing else None
    return {"seconds": estimated.seconds, "memory_mb": estimated.memory_mb} if estimated else None


def with_actual_usage(task: Task, metrics: dict[str, Any]) -> dict[str, float] | None:
    """Return `Task.foreseen` with the time and memory that the run really took.

    Leave out both if the run was interrupted: it then took longer for reasons that no estimate can know.
    """
    if not task.foreseen or not task.started_at or task.attempt > 1:
        return task.foreseen
    seconds = (timezone.now() - task.started_at).total_seconds()
    return task.foreseen | {"took_seconds": seconds, "took_mb": metrics["system"]["peak_memory_mb"]}


def past_error() -> PastError | None:
    """Compare estimates with what the most recent runs took; None if no estimated run has succeeded yet."""
    tasks = Task.objects.filter(status=Status.SUCCESS, foreseen__isnull=False).order_by("-ended_at")
    recent: list[Any] = list(tasks.values_list("foreseen", flat=True)[:RECENT])
    estimates = [foreseen for foreseen in recent if foreseen and "took_seconds" in foreseen]
    if not estimates:
        return None
    return PastError(
        runs=len(estimates),
        seconds=median_error((e["seconds"], e["took_seconds"]) for e in estimates),
        memory=median_error((e["memory_mb"], e["took_mb"]) for e in estimates),
    )


def median_error(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the median relative error of (estimated, actual) pairs."""
    return median(abs(estimated / actual - 1) for estimated, actual in pairs)


def forecast_from(timing: Timing, config: RunConfig) -> RunEstimate | None:
    return estimate_run(config, RunMeasurement(**timing.result)) if timing.result else None


def cache_key(config: RunConfig, version: Version | None) -> str:
    """Return a hash of everything that affects a measurement."""
    content = [
        settings_with_influence(config),
        version.hash if version else None,
        queue.device_kind_for(config.training.device),
        installed_version("torch"),
        [field.name for field in fields(RunMeasurement)],  # measurements of an earlier release may lack some of them
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@transaction.atomic
def queue_measurement(user: User, config: RunConfig, version: Version | None) -> Timing:
    """Create the measurement, or queue again the one that failed; raise Conflict if the person has too many."""
    User.objects.select_for_update().get(pk=user.pk)  # so that two requests do not count at the same time
    if Timing.objects.filter(owner=user).exclude(status__in=ENDED).count() >= MOST_AT_ONCE:
        raise ConflictError(_("%d of your measurements have not ended yet. Wait for one of them.") % MOST_AT_ONCE)
    timing, created = Timing.objects.get_or_create(
        key=cache_key(config, version),
        defaults={
            "owner": user,
            "version": version,
            "config": config.model_dump(mode="json"),
            "device_kind": queue.device_kind_for(config.training.device),
        },
    )
    if not created and timing.can_resume:
        timing.queue_again()
    transaction.on_commit(partial(queue.send, Timing, timing.pk))
    return timing
