"""A request while it arrives: its deadline, its size, and where its body is stored."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser
from waitress.utilities import BadRequest

from .site import BODY_MEMORY, DISCARD_FACTOR, Head, Site

CHUNK_LINE = 4096  # bytes; waitress would buffer an endless one in memory and search it anew with each packet


class Body:
    """Bytes in memory, then in a file of `folder`; only their number once they are discarded."""

    def __init__(self, folder: Path | None) -> None:
        self.file: IO[bytes] = SpooledTemporaryFile(BODY_MEMORY, dir=str(folder) if folder else None)  # noqa: SIM115  close() closes it
        self.size = 0
        self.discarded = False
        self.disk_failed = False

    def __len__(self) -> int:
        return self.size

    def append(self, data: bytes) -> None:
        """Store `data`, or only count it once the body is discarded. A disk that refuses it discards the body."""
        self.size += len(data)
        if not self.discarded:
            try:
                self.file.write(data)
            except OSError:
                self.disk_failed = True
                self.discard()

    def finish(self) -> None:
        """Rewind the body for the application."""
        if not self.discarded:
            try:
                self.file.seek(0)  # writes what is still buffered, so it may fail as any write
            except OSError:
                self.disk_failed = True
                self.discard()

    def discard(self) -> None:
        """Free the memory or the disk space of the body, and store nothing more of it."""
        self.discarded = True
        self.close()
        self.file = io.BytesIO()

    def getfile(self) -> IO[bytes]:
        return self.file

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()


class Request(HTTPRequestParser):
    """`refused` says why the body was not stored: too_large, busy or disk_full. The application words the answer."""

    refused = ""
    limit = 0  # bytes of the body

    def __init__(self, adjustments: Adjustments, site: Site, has_room_for: Callable[["Request"], bool]) -> None:
        super().__init__(adjustments)
        self.site = site
        self.has_room_for = has_room_for
        self.begun = time.monotonic()
        self.is_incomplete = False  # answered before all of it has arrived

    @property
    def head(self) -> Head:
        return Head(self.command.upper(), self.path, self.headers)

    @property
    def reserved(self) -> int:
        """Return how many bytes on disk this request may still need."""
        if self.body_rcv is None or self.body_rcv.getbuf().discarded:
            return 0
        # A chunked body does not say beforehand how long it is, so it counts as the longest that is allowed.
        size = self.limit if self.chunked else self.content_length
        if size <= BODY_MEMORY:
            return 0
        return size

    def received(self, data: bytes) -> int:
        """Parse what arrived and return how much of it belongs to this request.

        Once the headers are complete, decide whether the body is stored; from then on, watch its size.
        """
        headers_were_complete = self.body_rcv is not None
        consumed = int(super().received(data))
        if self.body_rcv is None or self.error:
            return consumed
        if headers_were_complete:
            self._check_body(self.body_rcv.getbuf())
            return consumed
        self.begun = time.monotonic()  # the headers had a deadline of their own
        self.limit = self.site.body_limit(self.head)
        self.body_rcv.buf = Body(self.site.folder)
        if self.content_length > self.limit:
            self._refuse("too_large")
        elif self.reserved and not self.has_room_for(self):
            self._refuse("busy")
        if self.refused and self.expect_continue:
            # The client waits for permission to send, and gets the answer instead.
            self._complete_unread()
        return consumed

    def is_late(self) -> bool:
        """Return whether the headers or the body should have been complete by now."""
        allowed = self.site.deadlines
        elapsed = time.monotonic() - self.begun
        if not self.headers_finished:
            return elapsed > allowed.head
        allowed_for_body = allowed.body + self.body_bytes_received / allowed.body_rate
        return bool(elapsed > allowed_for_body)

    def _check_body(self, body: Body) -> None:
        """Refuse a body that turned out too large or that the disk did not take."""
        receiver = self.body_rcv
        if self.chunked and len(receiver.control_line) + len(receiver.trailer) > CHUNK_LINE:
            self.error = BadRequest("A chunk's header is too long")
            self.completed = True
            return
        if len(body) > self.limit and not self.refused:
            self._refuse("too_large")
        if self.completed:
            body.finish()
        if body.disk_failed and not self.refused:
            self._refuse("disk_full")
        # Many clients read no answer before they have sent all, so read on for a while. There is an end to that, too.
        if self.refused and not self.completed and self.body_bytes_received > self.limit * DISCARD_FACTOR:
            self._complete_unread()

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.body_rcv.buf.discard()

    def _complete_unread(self) -> None:
        """Let the application answer now; the connection closes after that, because the rest of the body may follow."""
        self.expect_continue = False
        self.completed = True
        self.is_incomplete = True
        self.headers["CONNECTION"] = "close"
        self.headers["CONTENT_LENGTH"] = str(max(self.content_length, len(self.body_rcv.buf)))
