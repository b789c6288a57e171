"""Redis carries ids and nothing else; the database is the truth (docs/reliability.md)."""

import os
import platform
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import redis
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from .models import Status, Work

RESEND_AFTER = timedelta(seconds=10)  # a sender may need so long between its claim and Redis
POPPED_BUT_NOT_STARTED = 15  # seconds that a worker may take from the pop to the row's STARTED
_REMEMBERED = 3600


def device_kind() -> str:
    """The queue of this machine's trainings: `DEVICE_KIND`, or what it has. Asks files, never CUDA (workers fork)."""
    if named := os.environ.get("DEVICE_KIND"):
        return named
    if Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists():
        return "cuda"
    return "mps" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"


def device_kinds() -> list[str]:
    """Kinds of the workers that this installation has, the usual one first: DEVICE_KINDS, or what this machine has."""
    return settings.DEVICE_KINDS or [device_kind()]


def kind_for(wanted: str) -> str:
    """The queue of a run that asks for a device; where no worker has it, the usual one, which says what it lacks."""
    kinds = device_kinds()
    return wanted if wanted in kinds else kinds[0]


def connect(timeout: float = 2.0) -> redis.Redis:
    """A client that gives up soon: a page that submits must not hang because Redis is away."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


def queue_of(name: str, connection: redis.Redis) -> Queue:
    return Queue(name, connection=connection, serializer=JSONSerializer, default_timeout=-1)


def job_id(task: Work) -> str:
    """One id per start, so that what an earlier start left in Redis never hides a later one."""
    return f"{task.pk}-{task.attempt}"


def send(kind: type[Work], task_id: UUID) -> bool:
    """Put an id in its queue. False: Redis is away or another sender was first; the reconciler looks again."""
    task = _waits(kind).filter(pk=task_id).first()
    if task is None or not task.within_limit() or not _claim(task):
        return False
    try:
        with connect() as connection:
            _push(task, connection)
    except redis.RedisError:
        _waits(kind).filter(pk=task.pk, attempt=task.attempt).update(sent_at=None)
        return False
    return True


def _waits(kind: type[Work]) -> QuerySet[Work]:
    return kind._default_manager.filter(status=Status.PENDING)


def _claim(task: Work) -> bool:
    """Of several senders one sees its UPDATE count; a claim whose sender dies is found missing in Redis later.

    Never `sent_at=task.sent_at`: SQLite writes milliseconds, and compares them as text with Django's microseconds.
    """
    same = _waits(type(task)).filter(pk=task.pk, attempt=task.attempt)
    free = same.filter(sent_at=None) if task.sent_at is None else same.filter(sent_at__lt=Now() - RESEND_AFTER)
    return bool(free.update(sent_at=Now()))


def _push(task: Work, connection: redis.Redis) -> None:
    forget(task, connection)
    queue_of(task.queue_name, connection).enqueue(
        task.job, args=[str(task.pk)], job_id=job_id(task), job_timeout=-1, result_ttl=0, failure_ttl=3600
    )


def forget(task: Work, connection: redis.Redis) -> None:
    """Remove whatever Redis still holds of this start."""
    queue = queue_of(task.queue_name, connection)
    queue.intermediate_queue.remove(job_id(task))
    connection.delete(_popped_key(task))
    try:
        Job.fetch(job_id(task), connection=connection, serializer=JSONSerializer).delete()
    except NoSuchJobError:
        connection.lrem(queue.key, 0, job_id(task))


def waiting(names: set[str], connection: redis.Redis) -> set[str]:
    """Job ids that wait in these queues."""
    return {found for name in names for found in queue_of(name, connection).job_ids}


def is_lost(task: Work, connection: redis.Redis) -> bool:
    """True when a job that no longer waits is not about to start either.

    A job between pop and start lies in the intermediate queue or in the registry of started jobs. It may stay there
    for a moment; longer means that its worker died in between.
    """
    queue = queue_of(task.queue_name, connection)
    popped = set(queue.intermediate_queue.get_job_ids()) | set(queue.started_job_registry.get_job_ids(cleanup=False))
    if job_id(task) not in popped:
        return True
    connection.set(_popped_key(task), 1, nx=True, ex=_REMEMBERED)
    return _REMEMBERED - connection.ttl(_popped_key(task)) > POPPED_BUT_NOT_STARTED


def _popped_key(task: Work) -> str:
    return f"lorasite:popped:{job_id(task)}"
