"""A request while it arrives: its deadline, its size, and where its body is kept."""

import contextlib
import io
import time
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from waitress.parser import HTTPRequestParser
from waitress.utilities import BadRequest

from .site import BODY_MEMORY, DISCARD_FACTOR, Head

CHUNK_LINE = 4096  # bytes; waitress would keep an endless one in memory and search it anew with each packet


class Body:
    """Bytes in memory, then in a file of `folder`; only their number once they are discarded."""

    def __init__(self, folder: Path | None) -> None:
        self.file: IO[bytes] = SpooledTemporaryFile(BODY_MEMORY, dir=str(folder) if folder else None)  # noqa: SIM115  close() closes it
        self.size = 0
        self.discarded = self.disk_failed = False

    def __len__(self) -> int:
        return self.size

    def append(self, data: bytes) -> None:
        self.size += len(data)
        if not self.discarded:
            self._checked(self.file.write, data)

    def finish(self) -> None:
        if not self.discarded:
            self._checked(self.file.seek, 0)  # writes what is still buffered, which may fail as any write

    def _checked(self, step: Any, value: Any) -> None:
        try:
            step(value)
        except OSError:
            self.disk_failed = True
            self.discard()

    def discard(self) -> None:
        self.discarded = True
        self.close()
        self.file = io.BytesIO()

    def getfile(self) -> IO[bytes]:
        return self.file

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()


class Request(HTTPRequestParser):
    """`refused` says why the body was not kept: too_large, busy or disk_full. The application words the answer."""

    refused = ""
    limit = 0

    def __init__(self, adj: Any, server: Any) -> None:
        super().__init__(adj)
        self.server = server
        self.begun = time.monotonic()

    @property
    def head(self) -> Head:
        return Head(self.command.upper(), self.path, self.headers)

    @property
    def body(self) -> Body | None:
        return None if self.body_rcv is None else self.body_rcv.getbuf()

    @property
    def reserved(self) -> int:
        """Bytes that this request may yet need on disk."""
        if self.body is None or self.body.discarded:
            return 0
        size = self.limit if self.chunked else self.content_length
        return size if size > BODY_MEMORY else 0

    def received(self, data: bytes) -> int:
        in_body = self.body_rcv is not None
        consumed = int(super().received(data))
        if self.body_rcv is not None and not self.error:
            if in_body:
                self._check_body(self.body_rcv.getbuf())
            else:
                self._admit_body()
        return consumed

    def late(self) -> bool:
        allowed = self.server.site.deadlines
        seconds = allowed.body + self.body_bytes_received / allowed.body_rate if self.headers_finished else allowed.head
        return bool(time.monotonic() > self.begun + seconds)

    def _admit_body(self) -> None:
        """The headers are here: decide whether the body is kept."""
        self.begun = time.monotonic()
        self.limit = self.server.site.body_limit(self.head)
        self.body_rcv.buf = Body(self.server.site.folder)
        if self.content_length > self.limit:
            self._refuse("too_large")
        elif self.reserved and not self.server.has_room_for(self):
            self._refuse("busy")
        if self.refused and self.expect_continue:
            self._complete_unread()  # the client waits for leave to send, and gets the answer instead

    def _check_body(self, body: Body) -> None:
        receiver = self.body_rcv
        if self.chunked and len(receiver.control_line) + len(receiver.trailer) > CHUNK_LINE:
            self.error, self.completed = BadRequest("A chunk's header is too long"), True
            return
        if len(body) > self.limit and not self.refused:
            self._refuse("too_large")
        if self.completed:
            body.finish()
        if body.disk_failed and not self.refused:
            self._refuse("disk_full")
        if self.refused and not self.completed and self.body_bytes_received > self.limit * DISCARD_FACTOR:
            self._complete_unread()

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.body_rcv.buf.discard()

    def _complete_unread(self) -> None:
        self.expect_continue, self.completed = False, True
        self.headers["CONNECTION"] = "close"
        self.headers["CONTENT_LENGTH"] = str(max(self.content_length, len(self.body_rcv.buf)))
