"""Children of `manage.py start`: started together, restarted when they die, ended together.

honcho ends everything when one child dies and supervisord wants a configuration file and a daemon, so these lines are ours.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from work.parent import end_with

GRACE = 28.0  # seconds: a worker finishes its step and saves a checkpoint in this time
BACKOFF_LIMIT = 30.0
REPAIR_AFTER = 2  # starts in a row that failed
STEADY = 10.0  # seconds; what lived longer did not fail by its own start, and is started again at once


@dataclass
class Child:
    """One supervised process. `run` is what it does; it never returns to the parent's code."""

    name: str
    run: Callable[[], None]
    repair: Callable[[], None] | None = None  # done once where it does not start
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    due: float = field(default=0.0)  # when it may be started (again)


class Supervisor:
    def __init__(self, *children: Child) -> None:
        self.children = list(children)
        self.stopping = False

    def run(self, parent: int | None = None) -> None:
        """Keep every child alive until SIGINT, SIGTERM or the end of the process `parent`, then end them all."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup asks: a closed terminal ends nothing
            signal.signal(signal.SIGHUP, self._stop)
        try:
            while not self.stopping:
                if parent and os.getppid() != parent:
                    say("The process that started this one has ended, so everything ends.")
                    break
                self.tend()
                time.sleep(0.2)
        finally:
            self.end()

    def tend(self) -> None:
        for child in self.children:
            self._tend(child)

    def tend_one(self, name: str) -> None:
        """Start one child ahead of the others."""
        self._tend(next(c for c in self.children if c.name == name))

    def _tend(self, child: Child) -> None:
        if child.pid and (code := _ended(child.pid)) is not None:
            self._lost(child, code)
        if not child.pid and time.monotonic() >= child.due and not self.stopping:
            child.pid, child.started = _spawn(child.run), time.monotonic()

    def end(self) -> None:
        """SIGTERM to all, in reverse order of their start; SIGKILL to what is left when the grace is over."""
        deadline = time.monotonic() + GRACE
        waiting = [c for c in reversed(self.children) if c.pid]
        # The last one ended is the first one started: workers still write to Redis while they save.
        for group in (waiting[:-1], waiting[-1:]):
            for child in group:
                _signal(child.pid, signal.SIGTERM)
            while any(_ended(c.pid) is None for c in group) and time.monotonic() < deadline:
                time.sleep(0.05)
            for child in group:
                _signal(child.pid, signal.SIGKILL)
                child.pid = 0

    def _lost(self, child: Child, code: int) -> None:
        lived = time.monotonic() - child.started
        child.failures = 0 if lived > STEADY else child.failures + 1
        wait = min(BACKOFF_LIMIT, 2.0 ** (child.failures - 1)) if child.failures else 0.0
        child.pid, child.due = 0, time.monotonic() + wait
        say(f"{child.name} ended ({_words(code)}); starting it again{f' in {wait:.0f} s' if wait else ''}.")
        if child.repair and child.failures == REPAIR_AFTER:
            child.repair()
            child.due = 0.0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True


def say(text: str) -> None:
    print(f"lorasite | {text}", flush=True)


def _spawn(run: Callable[[], None]) -> int:
    """Fork, so that a child starts with Django already imported; `run` may exec something else."""
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # Ctrl-C reaches the supervisor alone, which ends its children in order
        end_with(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        run()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException as error:
        print(f"lorasite | {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended (reaped once), None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _words(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
