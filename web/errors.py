"""The errors that people see. Raise one where the thing is known; web.error_responses turns it into a page or problem+json."""

from typing import Any

from django.utils.translation import gettext_lazy as _


class LorasiteError(Exception):
    """An expected failure: a sentence for a person, a code for a program, an HTTP status, and the field at fault if any.

    `problems` lists several at once, each {"field", "message"}; `facts` are extra machine-readable values.
    """

    code, status = "error", 400
    message: Any = _("This request could not be carried out.")

    def __init__(
        self,
        message: Any = None,
        *,
        field: str | None = None,
        problems: list[dict[str, Any]] | None = None,
        **facts: Any,
    ) -> None:
        self.message = message or self.message
        self.problems = problems or ([{"field": field, "message": self.message}] if field else [])
        self.facts = facts
        super().__init__(str(self.message))


class Invalid(LorasiteError):
    code, status = "invalid", 400


class NotFound(LorasiteError):
    code, status = "not_found", 404
    message = _("There is no such thing here, or it is not shared with you.")


class NotAllowed(LorasiteError):
    code, status = "not_allowed", 403
    message = _("Your role does not allow this. Ask an administrator.")


class TooLarge(LorasiteError):
    code, status = "too_large", 413
    message = _("This request is larger than allowed; nothing was changed. Send it in parts.")


class Conflict(LorasiteError):
    code, status = "conflict", 409


def is_panic(error: BaseException) -> bool:
    """Whether native code written in Rust gave up. Python gets that as a BaseException, which `except Exception` misses."""
    return type(error).__module__ == "pyo3_runtime"
