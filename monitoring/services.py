"""A worker's sign of life: one row that it renews every few seconds."""

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

FORGOTTEN_AFTER = timedelta(hours=1)  # a worker that is gone stays in sight for so long


def beat(kind: str) -> None:
    """This process is a living worker of the queue `kind`."""
    touch_beat_file()
    seen: dict[str, Any] = {"kind": kind, "seen_at": Now(), "figures": machine.figures()}
    if not _mine().update(**seen):
        device = next((gpu["name"] for gpu in seen["figures"]["gpus"]), machine.processor())
        about = {"device": device[:120], "version": settings.VERSION, "started_at": Now()}
        Worker.objects.create(host=socket.gethostname(), pid=os.getpid(), **about, **seen)
    Worker.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()


def leave() -> None:
    """This worker ends as it was asked to: it is not gone, there is just one less."""
    _mine().delete()


def touch_beat_file() -> None:
    """For a container's health check, which can ask for a file's age at no cost; the database may be away meanwhile."""
    if settings.WORKER_BEAT_FILE:
        with contextlib.suppress(OSError):
            Path(settings.WORKER_BEAT_FILE).touch()


def _mine() -> Any:
    return Worker.objects.filter(host=socket.gethostname(), pid=os.getpid())
