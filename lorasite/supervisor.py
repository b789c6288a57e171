"""The child processes of `manage.py start`: started together, restarted when they die, ended together.

honcho ends everything when one child dies, and supervisord needs a configuration file and a daemon, so this is our own.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from work.parent import end_with

GRACE = 28.0  # seconds in which a worker finishes its step and saves a checkpoint
BACKOFF_LIMIT = 30.0  # seconds
REPAIR_AFTER = 2  # failed starts in a row
STEADY = 10.0  # seconds. A child that lived longer did not fail at its start, and is started again at once.


@dataclass
class Child:
    """One supervised process."""

    name: str
    run: Callable[[], None]  # the work of the process; it never returns to the parent's code
    repair: Callable[[], None] | None = None  # called once after REPAIR_AFTER failed starts
    pid: int = 0  # 0 while it does not run
    started: float = 0.0  # monotonic time
    failures: int = 0  # failed starts in a row
    due: float = 0.0  # monotonic time of the next start

    def schedule_restart(self, exit_code: int) -> None:
        """Note that the process has ended. Each failed start in a row doubles the wait before the next one."""
        lifetime = time.monotonic() - self.started
        self.failures = 0 if lifetime > STEADY else self.failures + 1
        wait = min(BACKOFF_LIMIT, 2.0 ** (self.failures - 1)) if self.failures else 0.0
        self.pid = 0
        self.due = time.monotonic() + wait
        reason = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit status {exit_code}"
        say(f"{self.name} ended ({reason}); starting it again{f' in {wait:.0f} s' if wait else ''}.")
        if self.repair and self.failures == REPAIR_AFTER:
            self.repair()
            self.due = 0.0


class Supervisor:
    def __init__(self, *children: Child) -> None:
        self.children = list(children)
        self.stopping = False

    def run(self, parent: int | None = None) -> None:
        """Keep every child alive until SIGINT, SIGTERM or the end of the process `parent`, then end them all."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        # nohup ignores SIGHUP, so that closing the terminal ends nothing.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._stop)
        try:
            while not self.stopping:
                if parent and os.getppid() != parent:
                    say("The process that started this one has ended, so everything ends.")
                    break
                for child in self.children:
                    self.check(child)
                time.sleep(0.2)
        finally:
            self.end()

    def check(self, child: Child) -> None:
        """Notice whether a child has ended, and start it if it is due."""
        exit_code = reap(child.pid) if child.pid else None
        if exit_code is not None:
            child.schedule_restart(exit_code)
        if not child.pid and time.monotonic() >= child.due and not self.stopping:
            child.pid = fork(child.run)
            child.started = time.monotonic()

    def end(self) -> None:
        """Send SIGTERM to all children, in reverse order of their start, and SIGKILL to those left after GRACE."""
        deadline = time.monotonic() + GRACE
        running = [child for child in reversed(self.children) if child.pid]
        # The first child started ends last, after all others: workers write to Redis while they save.
        for group in (running[:-1], running[-1:]):
            for child in group:
                send_signal(child.pid, signal.SIGTERM)
            while any(reap(child.pid) is None for child in group) and time.monotonic() < deadline:
                time.sleep(0.05)
            for child in group:
                send_signal(child.pid, signal.SIGKILL)
                child.pid = 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True


def say(text: str) -> None:
    """Print a line of the supervisor, marked so that it stands out among the lines of its children."""
    print(f"lorasite | {text}", flush=True)


def fork(run: Callable[[], None]) -> int:
    """Run a function in a forked process, which has Django imported already; return its pid. It may exec something else."""
    parent = os.getpid()
    sys.stdout.flush()  # otherwise the child would print the parent's buffer again
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # Ctrl-C reaches only the supervisor, which ends its children in order
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


def reap(pid: int) -> int | None:
    """Return the exit status of a child that has ended, negative for a signal; None while it runs."""
    try:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # it was reaped before
        return 0
    return os.waitstatus_to_exitcode(status) if ended_pid else None


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child and to all processes that it started: each child leads a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
