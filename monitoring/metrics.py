"""What the database knows, for Prometheus: read at each scrape, so that every web server tells the same.

Requests and predictions are counted where they are answered (django-prometheus, inference.metrics); docs/monitoring.md
lists all.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import health, selectors


def exposition() -> bytes:
    return generate_latest(REGISTRY) + generate_latest(INSTALLATION)


class Installation(Collector):
    """A database that is away is a figure (lorasite_check_ok), not a failed scrape."""

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "1, for the version that runs.", ["version"], [([settings.VERSION], 1)])
        yield _gauge(
            "check_ok",
            "1 while a check of /readyz holds, else 0.",
            ["check"],
            [([check.name], float(check.state != "error")) for check in health.checks()],
        )
        yield from _disks()
        try:
            found = [*_tasks(), *_workers()]
        except DatabaseError:
            connection.close()
            return
        yield from found


def _disks() -> Iterator[Metric]:
    disks = health.disks()
    size, free = [([d.place], d.size) for d in disks], [([d.place], d.free) for d in disks]
    yield _gauge("disk_size_bytes", "Size of the file system under a folder.", ["place"], size)
    yield _gauge("disk_free_bytes", "Free space of the file system under a folder.", ["place"], free)


def _tasks() -> Iterator[Metric]:
    queues = selectors.queues()
    length, oldest = [([q.kind], q.waiting) for q in queues], [([q.kind], q.oldest_seconds) for q in queues]
    speed = [([q.kind], q.tokens_per_second) for q in queues]
    yield _gauge("queue_length", "Tasks that wait in a queue.", ["kind"], length)
    yield _gauge(
        "queue_oldest_seconds", "How long the oldest waiting task has waited; 0 while none does.", ["kind"], oldest
    )
    yield _gauge("running_tokens_per_second", "Tokens per second of all running tasks together.", ["kind"], speed)
    yield _gauge(
        "tasks", "Tasks by their status.", ["status"], [([s], n) for s, n in selectors.tasks_by_status().items()]
    )


def _workers() -> Iterator[Metric]:
    living = list(health.living_workers())
    counted = [([kind], sum(w.kind == kind for w in living)) for kind in settings.QUEUE_NAMES]
    yield _gauge("workers", "Workers that were seen in the last 45 seconds.", ["kind"], counted)
    for name, key, scale, said in (
        ("worker_cpu_ratio", "cpu_percent", 0.01, "Use of a worker's machine: all of its cores are 1."),
        ("worker_memory_bytes", "memory_bytes", 1, "Memory of a worker's machine or container."),
        ("worker_memory_used_bytes", "memory_used_bytes", 1, "Memory in use there."),
    ):
        yield _gauge(name, said, ["worker"], [([str(w)], w.figures[key] * scale) for w in living if key in w.figures])
    for name, key, scale, said in (
        ("gpu_use_ratio", "use_percent", 0.01, "Share of the time in which the GPU computed."),
        ("gpu_memory_bytes", "memory_bytes", 1, "Memory of a GPU."),
        ("gpu_memory_used_bytes", "memory_used_bytes", 1, "GPU memory in use."),
        ("gpu_celsius", "celsius", 1, "A GPU's temperature."),
    ):
        yield _gauge(name, said, ["worker", "gpu"], list(_of_gpus(living, key, scale)))


def _of_gpus(living: list[Any], key: str, scale: float) -> Iterator[tuple[list[str], float]]:
    for worker in living:
        for number, gpu in enumerate(worker.figures.get("gpus", [])):
            if key in gpu:
                yield [str(worker), str(number)], gpu[key] * scale


def _gauge(name: str, said: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    found = GaugeMetricFamily(f"lorasite_{name}", said, labels=labels)
    for label, value in values:
        found.add_metric(label, value)
    return found


INSTALLATION = CollectorRegistry()
INSTALLATION.register(Installation())
