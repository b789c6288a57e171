"""Waiting for all connections at once.

waitress's own loop asks each connection before each wait what it waits for, so a thousand silent ones cost every request a
millisecond. Here a connection reports when that changes, by adding itself to `changed`.
"""

import selectors
import threading
from collections import deque

from waitress import wasyncore

EVENTS = {selectors.EVENT_READ: wasyncore.select.POLLIN, selectors.EVENT_WRITE: wasyncore.select.POLLOUT}
FLAGS = {mask: sum(flag for event, flag in EVENTS.items() if mask & event) for mask in range(1, 4)}


class Loop:
    """`sockets` is waitress's map of everything that is open, by file number."""

    def __init__(self, sockets: dict[int, wasyncore.dispatcher]) -> None:
        self.sockets = sockets
        self.selector = selectors.DefaultSelector()
        self.changed: deque[wasyncore.dispatcher] = deque()
        self.serving = threading.local()  # `channel`: the connection that this thread answers

    def turn(self, seconds: float) -> None:
        """Wait at most `seconds` for something to happen, and handle all that did."""
        while self.changed:
            self.renew(self.changed.popleft())
        for key, mask in self.selector.select(seconds):
            connection = self.sockets.get(key.fd)
            # An event before may have closed this connection, and its number may belong to a new one already.
            if connection is not None and connection is key.data:
                wasyncore.readwrite(connection, FLAGS[mask])
                self.renew(connection)

    def renew(self, connection: wasyncore.dispatcher) -> None:
        """Register what the connection waits for now; it may have been closed meanwhile."""
        number = connection._fileno
        if number is None or number not in self.sockets or self.sockets[number] is not connection:
            return
        events = 0
        if connection.readable():
            events |= selectors.EVENT_READ
        if connection.writable() and not connection.accepting:
            events |= selectors.EVENT_WRITE
        registered = self.selector.get_map().get(number)
        if registered is not None and not events:
            self.selector.unregister(number)
        elif registered is None and events:
            self.selector.register(number, events, connection)
        elif registered is not None and (registered.events, registered.data) != (events, connection):
            self.selector.modify(number, events, connection)

    def forget(self, number: int) -> None:
        """Unregister a file before it is closed: its number may belong to another connection a moment later."""
        if self.selector.get_map().get(number) is not None:
            self.selector.unregister(number)
