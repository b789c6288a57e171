"""Waiting for all connections at once.

waitress's own loop asks each connection before each wait what it waits for, so that a thousand silent ones cost every request a
millisecond. This one is told when that changes.
"""

import selectors
import threading
from collections import deque
from typing import Any

from waitress import wasyncore

EVENTS = {selectors.EVENT_READ: wasyncore.select.POLLIN, selectors.EVENT_WRITE: wasyncore.select.POLLOUT}
FLAGS = {mask: sum(flag for event, flag in EVENTS.items() if mask & event) for mask in range(1, 4)}


class Loop:
    """`sockets` is waitress's map of everything that is open, by file number."""

    def __init__(self, sockets: dict[int, Any]) -> None:
        self.sockets = sockets
        self.selector = selectors.DefaultSelector()
        self.changed: deque[Any] = deque()
        self.serving = threading.local()  # the connection that this thread answers

    def turn(self, seconds: float) -> None:
        """Wait for something to happen, for so long at most, and deal with all that did."""
        while self.changed:
            self.renew(self.changed.popleft())
        for key, mask in self.selector.select(seconds):
            found = self.sockets.get(key.fd)
            if found is not None and found is key.data:
                wasyncore.readwrite(found, FLAGS[mask])
                self.renew(found)

    def renew(self, found: Any) -> None:
        """Wait for what this connection waits for now; it may have been closed meanwhile."""
        number = found._fileno
        if number is None or number not in self.sockets or self.sockets[number] is not found:
            return
        events = (selectors.EVENT_READ if found.readable() else 0) | (selectors.EVENT_WRITE * self._writes(found))
        known = self.selector.get_map().get(number)
        if known is not None and not events:
            self.selector.unregister(number)
        elif known is None and events:
            self.selector.register(number, events, found)
        elif known is not None and (known.events, known.data) != (events, found):
            self.selector.modify(number, events, found)

    def forget(self, number: int) -> None:
        """Before the file is closed: its number may be another connection's a moment later."""
        if self.selector.get_map().get(number) is not None:
            self.selector.unregister(number)

    @staticmethod
    def _writes(found: Any) -> bool:
        return bool(found.writable()) and not found.accepting
