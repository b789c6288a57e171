"""Where the current request comes from: set by the middleware, read by record()."""

from contextvars import ContextVar
from dataclasses import dataclass

from django.http import HttpRequest


@dataclass(frozen=True, slots=True)
class Context:
    """Empty outside of requests, such as in commands and workers."""

    request: HttpRequest | None = None
    address: str | None = None
    request_id: str = ""


current_context: ContextVar[Context] = ContextVar("audit_context", default=Context())  # noqa: B039  it is frozen
