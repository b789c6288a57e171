"""A dataset of real tweets and tiny runs of the sample base model on it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from testing.datasets import store_dataset
from training import services
from training.models import Task

BASE_DIR = Path(__file__).resolve().parents[2]


@pytest.fixture
def dataset(member: Any, tweets_csv: Path) -> Any:
    return store_dataset(member, "tweets", tweets_csv).dataset


def tiny(name: str = "tiny", **training: Any) -> dict[str, Any]:
    """A run of a few seconds."""
    return {
        "experiment_name": name,
        "lora": {"r": 4, "layers_to_transform": [5]},
        "data": {"dataset_name": "tweets", "train_samples": 64, "eval_samples": 32, "max_length": 24},
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 1, **training},
        "system": {"num_threads": 1, "baseline": False},
    }


def long(name: str = "long") -> dict[str, Any]:
    """A run that does not end by itself while a test looks on."""
    return tiny(name, max_steps=20_000, eval_strategy="no", save_strategy="steps", save_steps=10)


@pytest.fixture
def submit(member: Any, dataset: Any) -> Callable[..., Task]:
    def do(config: dict[str, Any] | None = None, **extra: Any) -> Task:
        return services.submit(user=member, config=services.parse_config(config or tiny()), **extra)

    return do


def until(condition: Callable[[], Any], *, seconds: float = 60, what: str = "") -> float:
    """Wait for a condition; how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not in {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - started


def reaches(task: Task, *, seconds: float = 120, **state: Any) -> float:
    """Wait until the task's row has these values (a callable is asked)."""

    def there() -> bool:
        task.refresh_from_db()
        return all(v(getattr(task, k)) if callable(v) else getattr(task, k) == v for k, v in state.items())

    return until(there, seconds=seconds, what=f"{state}, but {task.status} step {task.step} error {task.error}")


@pytest.fixture
def start_worker(redis_server: str, transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """start_worker() starts `manage.py worker` as a process of its own on the test's database and Redis."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*line: str, **environment: str) -> subprocess.Popen[bytes]:
        log = open(tmp_path / f"worker{len(started)}.log", "wb")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "manage.py", *(line or ["worker"])],
            cwd=BASE_DIR,
            env={**_environment(), **environment},
            stdout=log,
            stderr=log,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
    for log in sorted(tmp_path.glob("worker*.log")):
        print(log.name, log.read_text(errors="replace")[-3000:], sep="\n")


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": _database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "DATA_DIR": str(settings.DATA_DIR),
        "RESULTS_DIR": str(settings.RESULTS_DIR),
        "SECRET_KEY": settings.SECRET_KEY,
        "LEASE_SECONDS": "5",
    }


def _database_url() -> str:
    d = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{d['NAME']}"
    return f"postgresql://{d['USER']}:{d['PASSWORD']}@{d['HOST'] or 'localhost'}:{d['PORT'] or 5432}/{d['NAME']}"


def horse_of(task: Task) -> int:
    """Process id of the work-horse that trains the task."""
    task.refresh_from_db()
    return int(task.worker.rpartition(":")[2])
