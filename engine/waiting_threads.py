"""Let OpenMP's threads sleep, instead of spin, while other programs need the cores.

After each parallel part of an operation, the threads of torch, MKL, oneDNN and our own kernels (all use the libgomp in torch's
wheel) wait for the next part. By default they spin for milliseconds. Alone that is a third faster than waking up; beside another
program, a spinning thread takes a core from the thread that it waits for, and a run falls to an eighth of its speed.

libgomp reads GOMP_SPINCOUNT once, when it is loaded. But it also stops spinning as soon as it manages more threads than there
are cores (`do_spin` in its config/linux/wait.h). So a second team of threads, which does nothing, switches spinning off, and on
again when it ends.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

CHOSEN_BY_USERS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
PERIOD_S = 0.5
CALM_PERIODS = 4  # without another program that needs the cores, before threads spin again
_SHARE = 0.25  # of a core that others take beyond what this process leaves them
_PARALLEL_FROM = 32_768  # elements for each thread of an operation of torch (at::internal::GRAIN_SIZE)

_watched: int | None = None  # process that has a watcher; a forked child has none
_others_need_cores = threading.Event()


def others_need_cores() -> bool:
    """Return whether other programs need cores that this process would use; False where nothing watches them."""
    return _watched == os.getpid() and _others_need_cores.is_set()


def watch_other_programs(threads: int | None = None) -> None:
    """Start to watch, once in each process that computes. Does nothing if the environment says how threads wait.

    `threads`: of the team, by default those of torch at any moment. Needs Linux, for libgomp and for /proc/stat.
    """
    global _watched
    is_chosen = any(name in os.environ for name in CHOSEN_BY_USERS)
    if _watched == os.getpid() or is_chosen or not os.path.exists("/proc/stat"):
        return
    _watched = os.getpid()
    _others_need_cores.clear()
    threading.Thread(target=_watch, args=[threads], name="waiting threads", daemon=True).start()


def _watch(threads: int | None) -> None:
    import torch  # deferred: takes a second

    team = IdleTeam()
    calm_periods = 0
    before = (time.monotonic(), busy_seconds(), time.process_time())
    while True:
        time.sleep(PERIOD_S)
        now = (time.monotonic(), busy_seconds(), time.process_time())
        seconds, busy, own = (a - b for a, b in zip(now, before, strict=True))
        before = now
        left_to_others = max(0, len(os.sched_getaffinity(0)) - (threads or torch.get_num_threads()))
        if (busy - own) / seconds > left_to_others + _SHARE:
            calm_periods = 0
            team.start()
            _others_need_cores.set()
        else:
            calm_periods += 1
            if calm_periods >= CALM_PERIODS:
                team.end()
                _others_need_cores.clear()


def busy_seconds() -> float:
    """Return for how long the cores that this process may use have worked since the machine started, for anybody."""
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    with open("/proc/stat") as lines:
        for line in lines:
            name, *times = line.split()
            if name in cores:
                user, nice, system, _idle, _iowait, irq, soft_irq, *_ = map(int, times)
                ticks += user + nice + system + irq + soft_irq
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(eq=False)
class IdleTeam:
    """A thread whose OpenMP threads do nothing; while it lives, no thread of OpenMP spins."""

    thread: threading.Thread | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start the thread, unless it lives."""
        if self.thread is None:
            self.ended.clear()
            self.thread = threading.Thread(target=self._hold, name="idle team", daemon=True)
            self.thread.start()

    def end(self) -> None:
        """End the thread and its team."""
        if self.thread is not None:
            self.ended.set()
            self.thread.join()
            self.thread = None

    def _hold(self) -> None:
        import torch  # as above

        torch.ones(_PARALLEL_FROM * torch.get_num_threads()).add_(1)  # an operation in parallel makes the team
        self.ended.wait()
