"""What the server has to know about the application that it serves, and the limits that hold for every client."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

WSGIApplication: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

HEAD_BYTES = 32 * 1024
BODY_MEMORY = 128 * 1024  # bytes of a body that stay in memory; the rest is on disk
DISCARD_FACTOR = 4  # a refused body is read to this many times its limit, so that the client listens for the answer


class Head(NamedTuple):
    """The part of a request that decides where it goes; header names are upper-case with underscores."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a client may keep the server waiting."""

    head: float = 10  # from a request's first byte, or from connecting, to the end of its headers
    body: float = 20  # for a body of any size; each `body_rate` bytes that arrived give a second more
    body_rate: int = 4096
    idle: float = 65  # between requests; above the 60 of nginx and most balancers, which must be the first to close
    send: float = 30  # without reading a byte of the answer
    linger: float = 30  # sending on after an answer that came early


@dataclass(frozen=True)
class Site:
    load: Callable[[], WSGIApplication]  # called in the process that answers
    address: str
    name: str
    lanes: dict[str, int]  # threads by lane; the first lane answers broken requests, too
    lane_of: Callable[[Head], str]
    body_limit: Callable[[Head], int]
    folder: Path | None = None  # where large bodies wait; None: the system's folder for temporary files
    folder_bytes: int = 1 << 30  # all large bodies together; a further one is refused as "busy"
    linger_bytes: int = 1 << 30  # discarded after an answer that came early, so that the client gets to read it
    deadlines: Deadlines = field(default_factory=Deadlines)
    connections: int = 1000  # then the one that was silent longest makes room
    log_level: str = "info"
    stall_seconds: int = 120  # a worker whose receiving thread hangs for so long is replaced
