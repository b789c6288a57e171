"""What RQ's queues and workers in Redis hold, beside what the database, which is the truth, says of the same queues."""

from dataclasses import dataclass, field

import redis
from django.conf import settings
from rq import Queue
from rq import Worker as RedisWorker
from rq.serializers import JSONSerializer

from work import queue

from . import selectors


@dataclass(frozen=True, slots=True)
class Held:
    """One queue: jobs in Redis (waiting; popped or started; failed), and work in the database."""

    name: str
    waiting: int
    taken: int
    failed: int
    waiting_rows: int
    running_rows: int


@dataclass(frozen=True, slots=True)
class RedisState:
    """`workers` are RQ's own words of each: name, queue, state, job in hand. Not `is_there`: Redis is away."""

    is_there: bool
    queues: list[Held] = field(default_factory=list)
    workers: list[tuple[str, str, str, str]] = field(default_factory=list)


def redis_state() -> RedisState:
    try:
        with queue.connect(timeout=1) as connection:
            return RedisState(True, _queues(connection), _workers(connection))
    except redis.RedisError:
        return RedisState(False)


def _queues(connection: redis.Redis) -> list[Held]:
    rows = {state.kind: (state.waiting, state.running) for state in selectors.queues()}
    return [_held(queue.rq_queue(name, connection), rows.get(name, (0, 0))) for name in settings.QUEUE_NAMES]


def _held(held: Queue, rows: tuple[int, int]) -> Held:
    popped = set(held.intermediate_queue.get_job_ids()) | set(held.started_job_registry.get_job_ids(cleanup=False))
    failed = held.failed_job_registry.get_job_count(cleanup=False)
    return Held(held.name, len(held.job_ids), len(popped), failed, *rows)


def _workers(connection: redis.Redis) -> list[tuple[str, str, str, str]]:
    found = RedisWorker.all(connection=connection, serializer=JSONSerializer)
    lines = [(w.name, ", ".join(w.queue_names()), str(w.get_state()), w.get_current_job_id() or "–") for w in found]
    return sorted(lines)
