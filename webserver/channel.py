"""A connection: how long its client may keep the server waiting, and what the application learns of its requests."""

import contextlib
import socket
import time
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from .request import Request

LINGER_CHUNK = 256 * 1024  # bytes
LATE_TEXT = b"The request did not arrive in time; nothing was changed. Try again."
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(LATE_TEXT), LATE_TEXT)
)


class Task(WSGITask):
    """The answering of one request, in a thread of its lane."""

    def execute(self) -> None:
        try:
            super().execute()
        except Exception:
            raise
        except BaseException as error:
            # waitress catches Exceptions only. A panic of a Rust library is none, and would end the whole process.
            raise RuntimeError(f"the application raised {type(error).__name__}") from error

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment with our entries. waitress calls this more than once and caches the result."""
        is_cached = self.environ is not None
        environ: dict[str, Any] = super().get_environment()
        if not is_cached:
            environ["webserver.refused"] = self.request.refused
            environ["webserver.client_left"] = self.channel.client_left
            environ["wsgi.url_scheme"] = self.channel.server.scheme_of(environ)
        return environ


class Channel(HTTPChannel):
    """waitress's connection, which tells the loop when it changes and closes when its client is too slow."""

    task_class = Task
    answered = False
    close_when_flushed: bool = False  # waitress's own, typed
    rest_may_follow = False  # the request is answered before all of it has arrived
    lingering_since: float | None = None
    discarded = 0  # bytes that arrived while lingering

    def parser_class(self, adjustments: Adjustments) -> Request:
        return Request(adjustments, self.server.site, self.server.has_room_for)

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        super().add_channel(map)
        self.server.loop.changed.append(self)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        """Forget the connection, and drop a body that is still arriving. waitress closes the socket right after."""
        if self._fileno is None:
            return  # waitress closes twice if a write fails after the application asked for the end of the connection
        self.server.loop.forget(self._fileno)
        super().del_channel(map)
        if self.request is not None:
            self.request.close()

    def service(self) -> None:
        """Answer the first request. Runs in a thread of its lane."""
        self.server.loop.serving.channel = self
        request = self.requests[0]
        self.rest_may_follow = request.is_incomplete or request.error is not None
        super().service()
        self.answered = True

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            # From here on the client is waited for, and no longer the application.
            self.last_activity = time.time()
        return int(super().write_soon(data))

    def handle_write(self) -> None:
        """Send what is due. After the last answer close the connection, or linger if the client may still be sending.

        Closing it with data unread would reset it, and the client would see a broken pipe in place of its answer.
        """
        if not (self.rest_may_follow and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif not self.total_outbufs_len:
            self.close_when_flushed = False
            self.lingering_since = time.monotonic()
            with contextlib.suppress(OSError):  # the client may be gone; the next read closes the connection then
                self.socket.shutdown(socket.SHUT_WR)

    def handle_read(self) -> None:
        """Receive; while lingering, discard what arrives until the client has read its answer and closes."""
        if self.lingering_since is None:
            super().handle_read()
            return
        try:
            self.discarded += len(self.recv(LINGER_CHUNK))
        except OSError:
            self.handle_close()
            return
        if self.discarded > self.server.site.linger_bytes:
            self.handle_close()

    def client_left(self) -> bool:
        """Return whether the client has closed its side of the connection, so that nobody waits for a long computation.

        May be called by the thread that answers. Does not receive what may lie there, such as a further request.
        """
        try:
            return not self.connected or not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):  # the receiving thread has closed it meanwhile
            return True

    def is_overdue(self) -> bool:
        """Return whether the client exceeded its deadline. Time that the application takes does not count."""
        silent = time.time() - self.last_activity
        allowed = self.server.site.deadlines
        if self.lingering_since is not None:
            return time.monotonic() - self.lingering_since > allowed.linger
        if self.total_outbufs_len:
            return bool(silent > allowed.send)
        if self.requests:
            return False
        if self.request is not None:
            return self.request.is_late()
        return bool(silent > (allowed.idle if self.answered else allowed.head))

    def expire(self) -> None:
        """Close the connection; answer 408 first if a request was arriving."""
        if self.request is not None and not self.requests and not self.total_outbufs_len:
            with contextlib.suppress(OSError):
                self.socket.send(LATE)
        self.handle_close()
