"""Errors that users see. Raise one where the failure is detected; web.error_responses turns it into a page or problem+json."""

from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class LorasiteError(Exception):
    """An expected failure: a sentence for people, a code for programs, an HTTP status, and the field at fault if any.

    `problems` lists several at once, each {"field", "message"}; `facts` are extra machine-readable values.
    """

    code = "error"
    status = 400
    message: str | Promise = _("This request could not be carried out.")

    def __init__(
        self,
        message: str | Promise | None = None,
        *,
        field: str | None = None,
        problems: list[dict[str, Any]] | None = None,
        **facts: Any,
    ) -> None:
        self.message = message or self.message
        self.problems = problems or ([{"field": field, "message": self.message}] if field else [])
        self.facts = facts
        super().__init__(str(self.message))


class InvalidError(LorasiteError):
    code = "invalid"
    status = 400


class NotFoundError(LorasiteError):
    code = "not_found"
    status = 404
    message = _("Not found, or you don't have access.")


class NotAllowedError(LorasiteError):
    code = "not_allowed"
    status = 403
    message = _("Your role does not allow this. Ask an administrator.")


class RequestTooLargeError(LorasiteError):
    code = "too_large"
    status = 413
    message = _("This request is larger than allowed; nothing was changed. Send it in parts.")


class ConflictError(LorasiteError):
    code = "conflict"
    status = 409


def is_panic(error: BaseException) -> bool:
    """Return whether Rust code panicked. PyO3 raises a BaseException for it, which `except Exception` does not catch."""
    return type(error).__module__ == "pyo3_runtime"
