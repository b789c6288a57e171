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
            connection = self.sockets.get(key.fd)
            if connection is not None and connection is key.data:
                wasyncore.readwrite(connection, FLAGS[mask])
                self.renew(connection)

    def renew(self, connection: Any) -> None:
        """Wait for what this connection waits for now; it may have been closed meanwhile."""
        number = connection._fileno
        if number is None or number not in self.sockets or self.sockets[number] is not connection:
            return
        events = (selectors.EVENT_READ if connection.readable() else 0) | (
            selectors.EVENT_WRITE * self._writes(connection)
        )
        registered = self.selector.get_map().get(number)
        if registered is not None and not events:
            self.selector.unregister(number)
        elif registered is None and events:
            self.selector.register(number, events, connection)
        elif registered is not None and (registered.events, registered.data) != (events, connection):
            self.selector.modify(number, events, connection)

    def forget(self, number: int) -> None:
        """Before the file is closed: its number may be another connection's a moment later."""
        if self.selector.get_map().get(number) is not None:
            self.selector.unregister(number)

    @staticmethod
    def _writes(found: Any) -> bool:
        return bool(found.writable()) and not found.accepting
