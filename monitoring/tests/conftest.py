from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from monitoring.models import Worker


@pytest.fixture
def worker(db: None) -> Worker:
    """A worker of the cpu queue that reported just now."""
    figures = {"cpu_percent": 40.0, "memory_bytes": 2**33, "memory_used_bytes": 2**31, "children": [7], "gpus": []}
    about: dict[str, Any] = {"kind": "cpu", "device": "a processor", "version": "0.1.0", "figures": figures}
    return Worker.objects.create(host="mill", pid=5, started_at=Now(), seen_at=Now(), **about)


@pytest.fixture
def dead_worker(worker: Worker) -> Worker:
    """The same worker, silent for five minutes."""
    Worker.objects.update(seen_at=Now() - timedelta(minutes=5))
    return worker
