"""RQ's queues and workers in Redis, beside the same queues in the database, which is authoritative."""

from dataclasses import dataclass, field

import redis
from django.conf import settings
from rq import Worker as RedisWorker
from rq.serializers import JSONSerializer

from work import queue

from . import selectors


@dataclass(frozen=True, slots=True)
class RedisQueue:
    """One queue: its jobs in Redis (waiting; popped or started; failed), and its tasks in the database."""

    name: str
    waiting: int
    taken: int
    failed: int
    waiting_rows: int
    running_rows: int


@dataclass(frozen=True, slots=True)
class RedisState:
    """`workers` has name, queues, state and current job of each RQ worker. If Redis is down, `is_there` is false."""

    is_there: bool
    queues: list[RedisQueue] = field(default_factory=list)
    workers: list[tuple[str, str, str, str]] = field(default_factory=list)


def redis_state() -> RedisState:
    """Read queues and workers from Redis and the database."""
    rows = {state.kind: (state.waiting, state.running) for state in selectors.queues()}
    try:
        with queue.connect(timeout=1) as connection:
            queues = [_read_queue(name, connection, rows.get(name, (0, 0))) for name in settings.RQ_QUEUES]
            workers = [
                (w.name, ", ".join(w.queue_names()), str(w.get_state()), w.get_current_job_id() or "–")
                for w in RedisWorker.all(connection=connection, serializer=JSONSerializer)
            ]
    except redis.RedisError:
        return RedisState(is_there=False)
    return RedisState(is_there=True, queues=queues, workers=sorted(workers))


def _read_queue(name: str, connection: redis.Redis, rows: tuple[int, int]) -> RedisQueue:
    rq_queue = queue.rq_queue(name, connection)
    # A job is in the intermediate queue from pop to start, and may be in both for a moment.
    popped = set(rq_queue.intermediate_queue.get_job_ids())
    started = set(rq_queue.started_job_registry.get_job_ids(cleanup=False))
    failed = rq_queue.failed_job_registry.get_job_count(cleanup=False)
    waiting_rows, running_rows = rows
    return RedisQueue(name, len(rq_queue.job_ids), len(popped | started), failed, waiting_rows, running_rows)
