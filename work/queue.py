"""The queue in Redis. It carries ids and nothing else; the database is the truth (docs/reliability.md)."""

import platform
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import django_rq
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

RESEND_AFTER = timedelta(seconds=10)  # the time that a sender may need between its claim and Redis
START_LIMIT = 15  # seconds that a worker may take from popping a job to the row's STARTED
POPPED_KEY_EXPIRES = 3600  # seconds


def device_kind() -> str:
    """Return the queue of this machine's training runs: DEVICE_KIND, or what the machine has.

    Looks at device files and never calls CUDA, because a worker forks and CUDA does not survive a fork.
    """
    if settings.DEVICE_KIND:
        return str(settings.DEVICE_KIND)
    if Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists():
        return "cuda"
    return "mps" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"


def device_kinds() -> list[str]:
    """Return the device kinds that this installation has workers for, the default one first."""
    return settings.DEVICE_KINDS or [device_kind()]


def device_kind_for(wanted: str) -> str:
    """Return the queue of a run that asks for a device; where no worker has it, the default one, whose worker will say so."""
    kinds = device_kinds()
    return wanted if wanted in kinds else kinds[0]


def connect(timeout: float = 2.0) -> redis.Redis:
    """Return a Redis client that gives up soon: a page that submits must not hang because Redis is away.

    `timeout` is in seconds, for each answer; a worker that waits for a job needs a longer one. Connecting may take a
    second, and nothing is tried twice.
    """
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


def rq_queue(name: str, connection: redis.Redis) -> Queue:
    """Return a queue as RQ_QUEUES configures it, over a connection of `connect`: django-rq's own have no time limits."""
    return django_rq.get_queue(name, connection=connection)


def job_id(task: Work) -> str:
    """Return the RQ job's id. There is one per start, so that what an earlier start left in Redis never hides a later one."""
    return f"{task.pk}-{task.attempt}"


def send(kind: type[Work], task_id: UUID) -> bool:
    """Put an id in its queue. Return False if Redis is away or another sender was first; the reconciler tries again."""
    task = _pending(kind).filter(pk=task_id).first()
    if task is None or not task.within_limit() or not claim(task):
        return False
    try:
        with connect() as connection:
            remove_job(task, connection)
            rq_queue(task.queue_name, connection).enqueue(
                task.job, args=[str(task.pk)], job_id=job_id(task), job_timeout=-1, result_ttl=0, failure_ttl=3600
            )
    except redis.RedisError:
        _pending(kind).filter(pk=task.pk, attempt=task.attempt).update(sent_at=None)
        return False
    return True


def _pending(kind: type[Work]) -> QuerySet[Work]:
    return kind._default_manager.filter(status=Status.PENDING)


def claim(task: Work) -> bool:
    """Mark a task as sent; return False if another sender was first.

    If a sender dies after its claim, the reconciler finds the id missing in Redis and sends it.
    """
    row = _pending(type(task)).filter(pk=task.pk, attempt=task.attempt)
    # Never compare with `sent_at=task.sent_at`: SQLite writes milliseconds, and compares them as text with Django's
    # microseconds.
    row = row.filter(sent_at=None) if task.sent_at is None else row.filter(sent_at__lt=Now() - RESEND_AFTER)
    return bool(row.update(sent_at=Now()))


def remove_job(task: Work, connection: redis.Redis) -> None:
    """Remove whatever Redis still holds of this start of the task."""
    queue = rq_queue(task.queue_name, connection)
    queue.intermediate_queue.remove(job_id(task))
    connection.delete(popped_key(task))
    try:
        Job.fetch(job_id(task), connection=connection, serializer=JSONSerializer).delete()
    except NoSuchJobError:
        connection.lrem(queue.key, 0, job_id(task))


def is_lost(task: Work, connection: redis.Redis) -> bool:
    """Return whether a job that no longer waits is not about to start either.

    A job between pop and start lies in the intermediate queue or in the registry of started jobs. It may stay there
    for START_LIMIT seconds; longer means that its worker died in between.
    """
    queue = rq_queue(task.queue_name, connection)
    popped = set(queue.intermediate_queue.get_job_ids()) | set(queue.started_job_registry.get_job_ids(cleanup=False))
    if job_id(task) not in popped:
        return True
    # The time to live of a key says how long ago we first saw the job popped.
    connection.set(popped_key(task), 1, nx=True, ex=POPPED_KEY_EXPIRES)
    return POPPED_KEY_EXPIRES - connection.ttl(popped_key(task)) > START_LIMIT


def popped_key(task: Work) -> str:
    return f"lorasite:popped:{job_id(task)}"
