"""The signals that ask a process to stop, held back where an exception between two instructions would break something."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_back() -> Iterator[None]:
    """Let a request to stop wait until the block ends; only then is its handler called. For the main thread.

    A handler that raises in the middle of a query leaves a connection that answers nothing more. In a receiver of a Django
    signal its exception would be caught with the receiver's own, and the request would be lost.
    """
    arrived: list[int] = []
    # Not a mask: the system would hand the signal to another thread, if a library has one, and Python call the handler here.
    handlers = {signum: signal.signal(signum, lambda number, frame: arrived.append(number)) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for number in arrived:
            signal.raise_signal(number)
