"""How much memory this process may use. Does not import torch, so that it can be used before anything is loaded."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NVIDIA = Path("/dev/nvidiactl")


def limit_to_free_memory() -> None:
    """Limit this process to the memory that is free now.

    Linux overcommits memory and kills a process that really uses it. With the limit, an allocation that is too large
    fails with an error instead, which the engine can handle. Does nothing outside Linux, nor where there is an NVIDIA
    driver: it reserves far more address space than memory.
    """
    if sys.platform != "linux" or NVIDIA.exists():
        return
    import resource  # Unix only

    new_limit = int(used_data_bytes() + min(psutil.virtual_memory().available, _free_in_container()))
    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    if hard_limit != resource.RLIM_INFINITY:
        new_limit = min(new_limit, hard_limit)
    resource.setrlimit(resource.RLIMIT_DATA, (new_limit, hard_limit))


def renew_limit() -> None:
    """Set the limit of `limit_to_free_memory` again, after memory went back to the system; without a limit, do nothing."""
    if _free_below_limit() < math.inf:
        limit_to_free_memory()


def free_bytes() -> int:
    """Return how many bytes this process may still use, given the machine, its container and its own limit."""
    return int(max(0, min(psutil.virtual_memory().available, _free_in_container(), _free_below_limit())))


def used_data_bytes() -> int:
    """Return how many bytes of this process count towards RLIMIT_DATA. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line for line in status if line.startswith("VmData")).split()[1]) * 1024


def _free_in_container() -> float:
    """Return the bytes that are left below the limit of this process's container; infinity without a limit."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf  # no cgroup v2, or memory.max is "max"
    # The kernel drops cached file pages before it kills anything, so they count as free.
    return limit - used + int(statistics.get("inactive_file", 0))


def _free_below_limit() -> float:
    """Return the bytes that are left below RLIMIT_DATA of this process; infinity without a limit."""
    if sys.platform != "linux":
        return math.inf
    import resource  # Unix only

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if limit == resource.RLIM_INFINITY else limit - used_data_bytes()
