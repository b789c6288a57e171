"""The user, address and ID of the current request: set by the middleware, read by record()."""

from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest


@dataclass(slots=True)
class Context:
    request: HttpRequest | None = None
    address: str | None = None
    request_id: str = ""

    @property
    def user(self) -> Any:  # accounts.models.User, which is above this package
        """The signed-in user of the request, or None."""
        user = getattr(self.request, "user", None)
        return user if user is not None and user.is_authenticated else None


_current: ContextVar[Context] = ContextVar("audit_context", default=Context())  # noqa: B039  (never mutated)


def current() -> Context:
    return _current.get()


def enter(context: Context) -> Token[Context]:
    return _current.set(context)


def leave(token: Token[Context]) -> None:
    _current.reset(token)
