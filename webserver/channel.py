"""A connection: what it may keep the server waiting for, and what the application is told of its requests."""

import contextlib
import time
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from .request import Request

LATE_TEXT = b"The request did not arrive in time; nothing was changed. Try again."
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(LATE_TEXT), LATE_TEXT)
)


class Task(WSGITask):
    def execute(self) -> None:
        try:
            super().execute()
        except Exception:
            raise
        except BaseException as error:  # a panic of a Rust library, for one: the request fails, the process lives
            raise RuntimeError(f"the application raised {type(error).__name__}") from error

    def get_environment(self) -> dict[str, Any]:
        first = self.environ is None
        environ: dict[str, Any] = super().get_environment()
        if first:
            environ["webserver.refused"] = self.request.refused
            environ["wsgi.url_scheme"] = self.channel.server.scheme_of(environ)
        return environ


class Channel(HTTPChannel):
    task_class = Task
    answered = False

    def parser_class(self, adj: Any) -> Request:
        return Request(adj, self.server)

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.loop.changed.append(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.loop.forget(self._fileno)
        super().del_channel(map)

    def service(self) -> None:
        self.server.loop.serving.channel = self
        super().service()
        self.answered = True

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            self.last_activity = time.time()  # from here on the client is waited for, and not the application
        return int(super().write_soon(data))

    def overdue(self) -> bool:
        """Whether the client let pass what it is given; the application's own time is not the client's."""
        silent, allowed = time.time() - self.last_activity, self.server.site.deadlines
        if self.total_outbufs_len:
            return bool(silent > allowed.send)
        if self.requests:
            return False
        if self.request is not None:
            return self.request.late()
        return bool(silent > (allowed.idle if self.answered else allowed.head))

    def expire(self) -> None:
        """Close; a client in the midst of a request is told why."""
        if self.request is not None and not self.requests and not self.total_outbufs_len:
            with contextlib.suppress(OSError):
                self.socket.send(LATE)
        self.handle_close()

    def handle_close(self) -> None:
        super().handle_close()
        if self.request is not None:
            self.request.close()
