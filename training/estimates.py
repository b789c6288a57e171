"""Estimate the time and memory of a run from a few of its own steps, and tell how far off earlier estimates were."""

import hashlib
import json
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
from work.paths import token_cache_dir

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
    """How far the estimates of recent runs were off, by the median, in time and in memory."""

    runs: int
    time_percent: int
    memory_percent: int


def request_estimate(user: User, config: RunConfig, version: Version | None, *, again: bool) -> Estimate:
    """Return the estimate of a run; queue a measurement if there is none, or `again` if it failed."""
    timing = Timing.objects.filter(key=cache_key(config, version)).first()
    if timing is None or (again and timing.can_resume):
        timing = queue_measurement(user, config, version)
    if not timing.result:
        return Estimate(timing, None)
    return Estimate(timing, forecast(config, timing.result))


def forecast(config: RunConfig, measured: dict[str, Any]) -> RunEstimate:
    """Return the estimate by a stored measurement, without what the base model need not compute again."""
    return estimate_run(config, RunMeasurement(**measured), token_cache_dir())


def find_estimate(config: RunConfig, version: Version | None) -> Estimate | None:
    """Return the estimate of a run that was measured or is being measured; None if nobody has asked for it."""
    timing = Timing.objects.filter(key=cache_key(config, version)).first()
    if timing is None:
        return None
    return Estimate(timing, forecast(config, timing.result) if timing.result else None)


def stored_estimate(config: RunConfig, version: Version | None) -> dict[str, float] | None:
    """Return the estimate for `Task.foreseen` if such a run has been measured, else None."""
    timing = Timing.objects.filter(key=cache_key(config, version), status=Status.SUCCESS).first()
    if timing is None or not timing.result:
        return None
    estimated = forecast(config, timing.result)
    return {"seconds": estimated.seconds, "memory_mb": estimated.memory_mb}


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
    # The median: a single run on a machine that was busy with something else must not decide.
    return PastError(
        runs=len(estimates),
        time_percent=round(100 * median(abs(e["seconds"] / e["took_seconds"] - 1) for e in estimates)),
        memory_percent=round(100 * median(abs(e["memory_mb"] / e["took_mb"] - 1) for e in estimates)),
    )


def cache_key(config: RunConfig, version: Version | None) -> str:
    """Return a hash of everything that affects a measurement."""
    content = [
        settings_with_influence(config),
        version.hash if version else None,
        queue.device_kind_for(config.training.device),
        installed_version("torch"),  # another release may compute at another speed
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
