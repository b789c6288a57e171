"""Who acts, from where, in which request: set by the middleware, read by record()."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Context:
    request: Any = None
    address: str | None = None
    request_id: str = ""

    @property
    def user(self) -> Any:
        user = getattr(self.request, "user", None)
        return user if user is not None and user.is_authenticated else None


_current: ContextVar[Context] = ContextVar("audit_context", default=Context())  # noqa: B039  (never mutated)


def current() -> Context:
    return _current.get()


def enter(context: Context) -> Any:
    return _current.set(context)


def leave(token: Any) -> None:
    _current.reset(token)
