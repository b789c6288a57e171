"""The heartbeat of workers: one row each, renewed every few seconds."""

import contextlib
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from . import machine
from .models import Worker

FORGOTTEN_AFTER = timedelta(hours=1)  # until then, a worker that died is shown as offline


def record_heartbeat(kind: str) -> None:
    """Record that this process is a running worker of the queue `kind`, with the machine's current figures."""
    if settings.WORKER_BEAT_FILE:
        # For a container's health check, which reads the file's age without a database. The database may be down.
        with contextlib.suppress(OSError):
            Path(settings.WORKER_BEAT_FILE).touch()
    host, pid = socket.gethostname(), os.getpid()
    current: dict[str, Any] = {"kind": kind, "seen_at": Now(), "figures": machine.figures()}
    if not Worker.objects.filter(host=host, pid=pid).update(**current):
        gpu_names = [gpu["name"] for gpu in current["figures"]["gpus"]]
        device = gpu_names[0] if gpu_names else machine.processor()
        Worker.objects.create(
            host=host, pid=pid, device=device[:120], version=settings.VERSION, started_at=Now(), **current
        )
    Worker.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()


def remove_worker() -> None:
    """Delete the row of this worker, which ends on request and must not be shown as offline."""
    Worker.objects.filter(host=socket.gethostname(), pid=os.getpid()).delete()
