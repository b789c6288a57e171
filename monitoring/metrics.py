"""Metrics of the installation for Prometheus, read from the database at each scrape, so every web server reports the same.

Requests and predictions are counted in the process that answers them (django-prometheus, inference.metrics).
docs/monitoring.md lists all metrics.
"""

from collections.abc import Iterable, Iterator

from django.conf import settings
from django.db import DatabaseError, connection
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import health, selectors

# Metric, key of Worker.figures, factor, description.
MACHINE_METRICS = (
    ("worker_cpu_ratio", "cpu_percent", 0.01, "CPU use of a worker's machine; all cores busy is 1."),
    ("worker_memory_bytes", "memory_bytes", 1, "Memory of a worker's machine or container."),
    ("worker_memory_used_bytes", "memory_used_bytes", 1, "Memory in use there."),
)
GPU_METRICS = (
    ("gpu_use_ratio", "use_percent", 0.01, "Share of the time in which the GPU computed."),
    ("gpu_memory_bytes", "memory_bytes", 1, "Memory of a GPU."),
    ("gpu_memory_used_bytes", "memory_used_bytes", 1, "GPU memory in use."),
    ("gpu_celsius", "celsius", 1, "Temperature of a GPU."),
)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY) + generate_latest(INSTALLATION)


class Installation(Collector):
    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "1, with the running version as a label.", ["version"], [([settings.VERSION], 1)])
        results = [([check.name], float(check.state != "error")) for check in health.checks()]
        yield gauge("check_ok", "1 while a check of /readyz passes, else 0.", ["check"], results)
        disks = health.disks()
        sizes = [([disk.place], disk.size) for disk in disks]
        free = [([disk.place], disk.free) for disk in disks]
        yield gauge("disk_size_bytes", "Size of the file system under a folder.", ["place"], sizes)
        yield gauge("disk_free_bytes", "Free space of the file system under a folder.", ["place"], free)
        # A database that is down is reported by lorasite_check_ok. It must not fail the scrape, so the metrics are
        # read completely before the first one is sent.
        try:
            from_database = [*task_metrics(), *worker_metrics()]
        except DatabaseError:
            connection.close()
            return
        yield from from_database


def task_metrics() -> Iterator[Metric]:
    queues = selectors.queues()
    lengths = [([queue.kind], queue.waiting) for queue in queues]
    waits = [([queue.kind], queue.oldest_seconds) for queue in queues]
    speeds = [([queue.kind], queue.tokens_per_second) for queue in queues]
    counts = [([status], count) for status, count in selectors.tasks_by_status().items()]
    yield gauge("queue_length", "Tasks waiting in a queue.", ["kind"], lengths)
    yield gauge("queue_oldest_seconds", "Wait of the oldest waiting task; 0 if none waits.", ["kind"], waits)
    yield gauge("running_tokens_per_second", "Tokens per second of all running tasks together.", ["kind"], speeds)
    yield gauge("tasks", "Tasks by status.", ["status"], counts)


def worker_metrics() -> Iterator[Metric]:
    workers = list(health.living_workers())
    counts = [([kind], sum(worker.kind == kind for worker in workers)) for kind in settings.RQ_QUEUES]
    yield gauge("workers", "Workers seen in the last 45 seconds.", ["kind"], counts)
    for name, key, factor, description in MACHINE_METRICS:
        values = [([str(worker)], worker.figures[key] * factor) for worker in workers if key in worker.figures]
        yield gauge(name, description, ["worker"], values)
    gpus = [
        (str(worker), str(number), gpu)
        for worker in workers
        for number, gpu in enumerate(worker.figures.get("gpus", []))
    ]
    for name, key, factor, description in GPU_METRICS:
        # Not every GPU reports its use and temperature.
        values = [([worker, number], gpu[key] * factor) for worker, number, gpu in gpus if key in gpu]
        yield gauge(name, description, ["worker", "gpu"], values)


def gauge(name: str, description: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    """Return the gauge `lorasite_<name>`.

    `values` are pairs: a value for each of `labels`, in their order, and the number.
    """
    family = GaugeMetricFamily(f"lorasite_{name}", description, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


INSTALLATION = CollectorRegistry()
INSTALLATION.register(Installation())
