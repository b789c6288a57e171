"""The state of the installation: queues, workers, the runs they train, versions."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Count, Min, Q, Sum, Value
from django.db.models.functions import Coalesce, Now

from datasets_app.models import QUEUE as DATA_QUEUE
from experiments.models import EXPORT_QUEUE
from training.models import Task
from work import queue
from work.models import Status, Work, task_kinds

from . import health
from .models import Worker

PACKAGES = ("django", "rq", "torch", "transformers", "peft")
SET_ASIDE_SHOWN = 10


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue in the database; `kind` is its name."""

    kind: str
    waiting: int
    running: int
    oldest_seconds: float
    tokens_per_second: float
    workers: int

    @property
    def is_unserved(self) -> bool:
        return self.waiting > 0 and self.workers == 0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's row, whether it reported lately, and the task that it trains."""

    row: Worker
    is_alive: bool
    task: Task | None


@dataclass(frozen=True, slots=True)
class System:
    """What the System page, the API and the command show."""

    checks: list[health.Check]
    queues: list[QueueState]
    workers: list[WorkerState]
    disks: list[health.Disk]
    set_aside: list[Task]
    versions: dict[str, str]

    @property
    def is_ready(self) -> bool:
        return health.is_ready(self.checks)


def system() -> System:
    """Run all checks and read everything else. Raises DatabaseError if the database is down."""
    return System(health.checks(), queues(), workers(), health.disks(), set_aside(), versions())


def queues() -> list[QueueState]:
    """Return the queues that this installation has workers for, and any other that has a task or a worker."""
    workers_by_queue = dict(health.living_workers().values_list("kind").annotate(n=Count("pk")))
    # Several kinds of task may share a queue: training runs and the benchmarks of estimates do.
    unfinished: dict[str, list[Mapping[str, Any]]] = {}
    for kind in task_kinds():
        for row in _count_unfinished(kind):
            unfinished.setdefault(row["waits_in"], []).append(row)
    shown = {*queue.device_kinds(), DATA_QUEUE, EXPORT_QUEUE, *workers_by_queue, *unfinished}
    states = []
    for name in settings.RQ_QUEUES:
        if name not in shown:
            continue
        rows = unfinished.get(name, [])
        waits = [(row["now"] - row["since"]).total_seconds() for row in rows if row["since"]]
        state = QueueState(
            kind=name,
            waiting=sum(row["waiting"] for row in rows),
            running=sum(row["running"] for row in rows),
            oldest_seconds=max([0.0, *waits]),
            tokens_per_second=sum(row["speed"] or 0.0 for row in rows),
            workers=workers_by_queue.get(name, 0),
        )
        states.append(state)
    return states


def _count_unfinished(kind: type[Work]) -> Iterable[Mapping[str, Any]]:
    """Count the waiting and running tasks of one kind by queue, with the time since when the oldest one waits."""
    waiting = kind.startable
    running = Q(status=Status.STARTED)
    unfinished = kind._default_manager.filter(waiting | running).order_by().values(waits_in=kind.queue)
    return unfinished.annotate(
        waiting=Count("pk", filter=waiting),
        running=Count("pk", filter=running),
        # A task that returns to the queue has not waited since it was created, but since it was sent again.
        since=Min(Coalesce("sent_at", "created_at"), filter=waiting),
        now=Now(),
        speed=Sum("tokens_per_second", filter=running) if kind is Task else Value(0.0),
    )


def tasks_by_status() -> dict[str, int]:
    """Count all training runs by status; 0 for a status that none has."""
    counts = dict(Task.objects.order_by().values_list("status").annotate(n=Count("pk")))
    return {status: counts.get(status, 0) for status in Status.values}


def workers() -> list[WorkerState]:
    """Return all workers, those that are alive first. One that died stays in the list for an hour."""
    alive = set(health.living_workers().values_list("pk", flat=True))
    running = {task.worker: task for task in Task.objects.filter(status=Status.STARTED).select_related("experiment")}
    states = []
    for row in Worker.objects.all():
        # A task names the process that trains it, which is a child process of the worker.
        names = [f"{row.host}:{child}" for child in row.figures.get("children", [])]
        tasks = [running[name] for name in names if name in running]
        states.append(WorkerState(row, is_alive=row.pk in alive, task=tasks[0] if tasks else None))
    return sorted(states, key=lambda worker: not worker.is_alive)


def set_aside() -> list[Task]:
    """Return the last runs that failed because their worker died repeatedly."""
    failed = Task.objects.filter(status=Status.FAILURE, error__code="worker_lost").select_related("experiment")
    return list(failed.order_by("-ended_at")[:SET_ASIDE_SHOWN])


def versions() -> dict[str, str]:
    """Return the versions of Lorasite, its main packages, the database and Redis (if it answers)."""
    numbers = {"Lorasite": settings.VERSION, "Python": python_version()}
    numbers |= {name: version(name) for name in PACKAGES}
    if connection.vendor == "sqlite":
        numbers["SQLite"] = sqlite3.sqlite_version
    else:
        number = connection.pg_version  # type: ignore[attr-defined]  # only PostgreSQL's connection has it
        numbers["PostgreSQL"] = f"{number // 10000}.{number % 10000}"
    with suppress(redis.RedisError), queue.connect(timeout=1) as client:
        server: dict[str, str] = client.info("server")
        if "valkey_version" in server:
            numbers["Valkey"] = server["valkey_version"]
        else:
            numbers["Redis"] = server["redis_version"]
    return numbers
