"""Reads over tasks and workers: how long the queues are, who serves them, what runs where."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from platform import python_version
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Count, Min, Q, Sum, Value
from django.db.models.functions import Coalesce, Now

from datasets_app.models import QUEUE as DATA_QUEUE
from training.models import Task
from work import queue
from work.models import Status, Work, task_kinds

from . import health
from .models import Worker

PACKAGES = ("django", "rq", "torch", "transformers", "peft")
SET_ASIDE_SHOWN = 10


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue, as the database knows it."""

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
    """A worker's row, whether it is alive, and the task that it trains."""

    row: Worker
    is_alive: bool
    task: Task | None


@dataclass(frozen=True, slots=True)
class System:
    """What the page, the API and the command tell of the installation."""

    checks: list[health.Check]
    queues: list[QueueState]
    workers: list[WorkerState]
    disks: list[health.Disk]
    set_aside: list[Task]
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return health.is_ready(self.checks)


def system() -> System:
    return System(health.checks(), queues(), workers(), health.disks(), set_aside(), versions())


def queues() -> list[QueueState]:
    """Return the queues that this installation has workers for, and any other that has a task or a worker."""
    workers_by_queue = dict(health.living_workers().values_list("kind").annotate(n=Count("pk")))
    # Several kinds of task may share a queue: training runs and the benchmarks of estimates do.
    unfinished: dict[str, list[Mapping[str, Any]]] = {}
    for kind in task_kinds():
        for row in _count_unfinished(kind):
            unfinished.setdefault(row["waits_in"], []).append(row)
    shown = {*queue.device_kinds(), DATA_QUEUE, *workers_by_queue, *unfinished}
    states = []
    for name in settings.QUEUE_NAMES:
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
    waiting = Q(status=Status.PENDING)
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
    counted = dict(Task.objects.order_by().values_list("status").annotate(n=Count("pk")))
    return {status: counted.get(status, 0) for status in Status.values}


def workers() -> list[WorkerState]:
    """The living ones first; those that are gone stay for an hour."""
    living = set(health.living_workers().values_list("pk", flat=True))
    running = {task.worker: task for task in Task.objects.filter(status=Status.STARTED).select_related("experiment")}
    found = [WorkerState(row, row.pk in living, _trained_by(row, running)) for row in Worker.objects.all()]
    return sorted(found, key=lambda worker: not worker.is_alive)


def _trained_by(row: Worker, running: dict[str, Task]) -> Task | None:
    """A task names the process that trains it, which is a child of the worker's."""
    holders = [f"{row.host}:{child}" for child in row.figures.get("children", [])]
    return next((running[holder] for holder in holders if holder in running), None)


def set_aside() -> list[Task]:
    """The last runs that ended because their worker died again and again."""
    failed = Task.objects.filter(status=Status.FAILURE, error__code="worker_lost").select_related("experiment")
    return list(failed.order_by("-ended_at")[:SET_ASIDE_SHOWN])


def versions() -> dict[str, str]:
    """What runs here, by name."""
    found = {"Lorasite": settings.VERSION, "Python": python_version()}
    found |= {name: version(name) for name in PACKAGES}
    found["SQLite" if connection.vendor == "sqlite" else "PostgreSQL"] = _database_version()
    return found | _redis_version()


def _database_version() -> str:
    if connection.vendor == "sqlite":
        return sqlite3.sqlite_version
    number = connection.pg_version  # type: ignore[attr-defined]  # PostgreSQL's
    return f"{number // 10000}.{number % 10000}"


def _redis_version() -> dict[str, str]:
    try:
        with queue.connect(timeout=1) as client:
            about: Any = client.info("server")
    except redis.RedisError:
        return {}
    return {"Valkey": about["valkey_version"]} if "valkey_version" in about else {"Redis": about["redis_version"]}
