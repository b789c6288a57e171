"""Figures of a machine: processor, memory, GPUs. Uses neither torch nor CUDA, so that a worker may fork afterwards."""

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import pynvml

from engine.memory_limits import CGROUP, NVIDIA, free_bytes

CPU_INFO = Path("/proc/cpuinfo")


def figures() -> dict[str, Any]:
    """Return the figures of this machine, or of the container that limits it.

    CPU use is in percent since the last call, memory in bytes. `children` are the process ids of running tasks.
    """
    process = psutil.Process()
    memory = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or the limit is "max"
        memory = min(memory, int((CGROUP / "memory.max").read_text()))
    return {
        # macOS has no affinity.
        "cores": len(process.cpu_affinity() or []) if hasattr(process, "cpu_affinity") else os.cpu_count(),
        "cpu_percent": psutil.cpu_percent(),
        "memory_bytes": memory,
        "memory_used_bytes": max(0, memory - free_bytes()),
        "children": [child.pid for child in process.children()],
        "gpus": gpus(),
    }


def processor() -> str:
    """Return the processor's name as its maker gives it."""
    with contextlib.suppress(OSError):  # only Linux has this file
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.startswith("model name"):  # not on every ARM processor
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpus() -> list[dict[str, Any]]:
    """Return each NVIDIA GPU: name, use in percent, memory in bytes, temperature in °C; empty if there is none."""
    if not NVIDIA.exists():
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the device exists, but not the driver's library
        return []
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            device = {
                "name": str(pynvml.nvmlDeviceGetName(handle)),
                "memory_bytes": memory.total,
                "memory_used_bytes": memory.used,
            }
            with contextlib.suppress(pynvml.NVMLError):  # a slice of a GPU (MIG) reports neither
                device["use_percent"] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                device["celsius"] = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            devices.append(device)
        return devices
    finally:
        pynvml.nvmlShutdown()
