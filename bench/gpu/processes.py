"""Start a process for each part of a run, and end it when its time is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

from bench.gpu.worker import MARK

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "PYTHONUNBUFFERED": "1"}


class WorkerError(Exception):
    """A part of the run did not finish: it failed, or its time was over."""


class Clock:
    """The time that a run may still take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left_until(self, share: float) -> float:
        """Return the seconds until a share of the whole time has passed."""
        return share * self.seconds - self.passed


def rows_of(task: dict[str, Any], seconds: float, log: Path, import_path: list[Path]) -> Iterator[dict[str, Any]]:
    """Run a worker and yield its rows as it prints them. Raises WorkerError if it fails or takes longer than `seconds`.

    log: file that gets what else the worker and its libraries print. import_path: folders of unpacked wheels.
    """
    if seconds <= 0:
        raise WorkerError("no time left")
    paths = [str(path) for path in (ROOT, *import_path)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = os.environ | OFFLINE | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # One GPU: the Trainer would take all that it sees.
    environment["CUDA_VISIBLE_DEVICES"] = (
        "" if task["device"] == "cpu" else environment.get("CUDA_VISIBLE_DEVICES", "0")
    )
    command = [sys.executable, "-m", "bench.gpu.worker", json.dumps(task)]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n== {task}\n")
        file.flush()
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment, cwd=ROOT)
        timer = Timer(seconds, process.kill)
        timer.start()
        try:
            yield from _parse(process, log)
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
    if status and time.monotonic() - started >= seconds:
        raise WorkerError(f"not finished in {seconds:.0f} s")
    if status:
        raise WorkerError(_last_line(log) or f"ended with status {status}")


def _parse(process: subprocess.Popen[str], log: Path) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))
        else:
            with log.open("a", encoding="utf-8") as file:
                file.write(line)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
