"""What a machine says of itself: processor, memory, GPUs. Asks neither torch nor CUDA, so that a worker may fork after it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from engine.memory_limits import CGROUP, NVIDIA, free_bytes

PROCESSORS = Path("/proc/cpuinfo")


def figures() -> dict[str, Any]:
    """Of this machine, or of the container that limits it: CPU use in percent since the last call, memory in bytes."""
    total = memory_bytes()
    return {
        "cores": len(psutil.Process().cpu_affinity() or [])
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count(),
        "cpu_percent": psutil.cpu_percent(),
        "memory_bytes": total,
        "memory_used_bytes": max(0, total - free_bytes()),
        "children": [child.pid for child in psutil.Process().children()],
        "gpus": gpus(),
    }


def memory_bytes() -> int:
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or "max"
        total = min(total, int((CGROUP / "memory.max").read_text()))
    return total


def processor() -> str:
    """The processor's name as its maker gives it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def gpus() -> list[dict[str, Any]]:
    """Each NVIDIA GPU: name, use in percent, memory in bytes, temperature in °C; empty where there is none."""
    if not NVIDIA.exists():
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the device is there, its library is not
        return []
    try:
        return list(_read(pynvml))
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any) -> Iterator[dict[str, Any]]:
    for index in range(nvml.nvmlDeviceGetCount()):
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        found = {
            "name": str(nvml.nvmlDeviceGetName(gpu)),
            "memory_bytes": memory.total,
            "memory_used_bytes": memory.used,
        }
        with contextlib.suppress(nvml.NVMLError):  # a slice of a GPU (MIG) says neither
            found["use_percent"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            found["celsius"] = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        yield found
