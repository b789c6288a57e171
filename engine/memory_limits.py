"""How much memory this process may use. Imports no torch, so that it can be asked before anything is loaded."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NVIDIA = Path("/dev/nvidiactl")


def refuse_more_than_free() -> None:
    """From now on this process gets an error, which can be met, where Linux would have killed it for memory.

    Not beside an NVIDIA driver, which reserves far more addresses than memory.
    """
    if sys.platform != "linux" or NVIDIA.exists():
        return
    _limit(_held_bytes() + min(_free_in_machine(), _free_in_container()))


def renew() -> None:
    """Count anew, after memory was given back whose addresses are kept; nothing where no limit was set."""
    if _free_below_limit() < math.inf:
        refuse_more_than_free()


def _limit(wanted: float) -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    soft = int(wanted) if most == resource.RLIM_INFINITY else min(int(wanted), most)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, most))


def free_bytes() -> int:
    """What this process may still use: of the machine's memory, of its container's, and below its own limit."""
    return int(max(0, min(_free_in_machine(), _free_in_container(), _free_below_limit())))


def _free_in_machine() -> float:
    return psutil.virtual_memory().available


def _free_in_container() -> float:
    try:
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf  # no cgroup v2, or "max"
    # Pages of files are given up before anything is killed.
    return most - used + int(statistics.get("inactive_file", 0))


def _free_below_limit() -> float:
    if sys.platform != "linux":
        return math.inf
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if limit == resource.RLIM_INFINITY else limit - _held_bytes()


def _held_bytes() -> int:
    """What RLIMIT_DATA counts of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line for line in status if line.startswith("VmData")).split()[1]) * 1024
