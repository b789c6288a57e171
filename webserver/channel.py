"""A connection: how long its client may keep the server waiting, and what the application learns of its requests."""

import contextlib
import time
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from .request import Request

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
        """Return the WSGI environment with our two entries. waitress calls this more than once and caches the result."""
        is_cached = self.environ is not None
        environ: dict[str, Any] = super().get_environment()
        if not is_cached:
            environ["webserver.refused"] = self.request.refused
            environ["wsgi.url_scheme"] = self.channel.server.scheme_of(environ)
        return environ


class Channel(HTTPChannel):
    """waitress's connection, which tells the loop when it changes and closes when its client is too slow."""

    task_class = Task
    answered = False

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
        super().service()
        self.answered = True

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            # From here on the client is waited for, and no longer the application.
            self.last_activity = time.time()
        return int(super().write_soon(data))

    def is_overdue(self) -> bool:
        """Return whether the client exceeded its deadline. Time that the application takes does not count."""
        silent = time.time() - self.last_activity
        allowed = self.server.site.deadlines
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
