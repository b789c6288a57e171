"""Keep a forked process running: when it is killed, fork the next one, which has everything imported already.

A worker imports torch and transformers for seconds. The process here has done so, then only waits. It needs hardly any
memory of its own, because the worker shares its pages; it computes nothing, holds no connection and never has a task.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from .parent import end_with
from .stop_signals import STOP_SIGNALS

log = logging.getLogger(__name__)
SHORT_LIFE = 1.0  # seconds
PAUSE = 1.0  # seconds before the next fork after a short life


def keep_running(run: Callable[[], None]) -> int:
    """Call `run` in a forked process, in a new one each time a signal kills it; return its exit status when it ends itself.

    SIGTERM and SIGINT are passed on as SIGTERM; afterwards nothing is forked any more.
    """
    stopping = False
    pid = 0

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if pid:
            os.kill(pid, signal.SIGTERM)

    for signum in STOP_SIGNALS:
        signal.signal(signum, stop)
    while True:
        started = time.monotonic()
        # A signal that came between the fork and the assignment would reach nobody, so it waits until both are done.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = fork(run)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        _, wait_status = os.waitpid(pid, 0)
        pid = 0
        exit_code = os.waitstatus_to_exitcode(wait_status)
        if exit_code >= 0 or stopping:
            return max(0, exit_code)
        log.warning("The worker was killed by %s; the next one starts.", signal.Signals(-exit_code).name)
        if time.monotonic() - started < SHORT_LIFE:
            time.sleep(PAUSE)  # whatever kills it at once would otherwise do so without an end
        if stopping:
            return 0


def fork(run: Callable[[], None]) -> int:
    """Run a function in a forked process that ends with this one; return its pid. STOP_SIGNALS must be blocked."""
    parent = os.getpid()
    sys.stdout.flush()  # otherwise the child would print the parent's buffer again
    pid = os.fork()
    if pid:
        return pid
    exit_code = 0
    try:
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        end_with(parent)
        run()
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        log.exception("The worker ended by an error.")
        exit_code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)  # nothing of the parent's stack may run twice
