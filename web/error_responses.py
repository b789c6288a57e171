"""The one place where an error becomes an answer: a page for a person, problem+json (RFC 9457) for a program."""

import logging
import sys
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from web import disk
from web.errors import Invalid, LorasiteError, NotAllowed, NotFound, TooLarge, is_panic

log = logging.getLogger(__name__)


class BusyReceiving(LorasiteError):
    code, status, wait = "busy", 503, 10
    message = gettext_lazy("Too many large files are arriving at once; nothing was stored. Try again in a moment.")


class Unreadable(LorasiteError):
    code, status = "unreadable", 400
    message = gettext_lazy("This request can't be read: it is nested too deeply, or holds half a character or a NUL.")


# What deep nesting, half a surrogate pair and broken forms raise, wherever they are met first.
UNREADABLE = (RecursionError, UnicodeEncodeError, SuspiciousOperation)


def problem(error: LorasiteError, request: Any = None) -> dict[str, Any]:
    body = {
        "type": f"about:blank#{error.code}",
        "title": str(error.message),
        "status": error.status,
        "code": error.code,
    }
    body["detail"] = " ".join(str(p["message"]) for p in error.problems) or str(error.message)
    body["errors"] = [{**p, "message": str(p["message"])} for p in error.problems]
    body["request_id"] = getattr(request, "id", "")
    return {**error.facts, **body}


class ErrorMiddleware:
    """Turns a LorasiteError that a page raised into a page that says it, and a panic of native code into an exception."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            return self.get_response(request)
        except BaseException as error:
            if not is_panic(error):
                raise
            raise RuntimeError("Native code panicked.") from error  # else it would end the server for everybody

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        known = error if isinstance(error, LorasiteError) else explained_by_disk(error)
        if known is None:
            return None
        note_refusal(request, known)
        return error_page(request, known)


def explained_by_disk(error: BaseException | None) -> LorasiteError | None:
    """The words for a disk that is full or refuses to be written to; the traceback goes into the log."""
    known = disk.explained(error) if error else None
    if known:
        log.error("%s", known, exc_info=error)
    return known


def note_refusal(request: Any, error: LorasiteError) -> None:
    """Leave a mark on the request when the role or the scope forbids what was asked; audit.middleware records it."""
    if error.status == 403:
        getattr(request, "_request", request).refused_code = error.code  # DRF wraps Django's request


def error_page(request: HttpRequest, error: LorasiteError) -> HttpResponse:
    if request.path.startswith("/api/") or request.accepts("text/html") is False:
        told: HttpResponse = JsonResponse(
            problem(error, request), status=error.status, content_type="application/problem+json"
        )
    else:
        told = render(request, "error.html", {"error": error}, status=error.status)
    if wait := getattr(error, "wait", None):
        told["Retry-After"] = str(int(wait))
    return told


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's handler: every failure of the API has the same shape."""
    request = context["request"]
    known = error if isinstance(error, LorasiteError) else _from_drf(error)
    if known is None:
        return None
    set_rollback()
    note_refusal(request, known)
    headers = {k: v for k, v in (("WWW-Authenticate", getattr(error, "auth_header", None)),) if v}
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    return Response(
        problem(known, request), status=known.status, headers=headers, content_type="application/problem+json"
    )


def _from_drf(error: Exception) -> LorasiteError | None:
    if isinstance(error, Http404):
        return NotFound()
    if isinstance(error, PermissionDenied):
        return NotAllowed()
    if isinstance(error, RequestDataTooBig):
        return TooLarge()
    if isinstance(error, UNREADABLE):
        return Unreadable()
    if not isinstance(error, exceptions.APIException):
        return explained_by_disk(error)
    problems = [{"field": f, "message": m} for f, m in _flatten(error.detail) if f]
    message = _("Some fields need a look.") if problems else " ".join(m for _f, m in _flatten(error.detail))
    found = Invalid(message, problems=problems)
    found.status, found.code = error.status_code, error.default_code
    return found


def _flatten(detail: Any, field: str = "") -> list[tuple[str, str]]:
    if isinstance(detail, dict):
        return [p for k, v in detail.items() for p in _flatten(v, f"{field}.{k}" if field else str(k))]
    if isinstance(detail, list):
        return [p for v in detail for p in _flatten(v, field)]
    return [(field if field not in ("detail", "code", "messages") else "", str(detail))]


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(request, NotFound(_("There is no page at this address.")))


def server_error(request: HttpRequest) -> HttpResponse:
    """For what no view raised: a middleware that stores the session meets a full disk too."""
    if known := explained_by_disk(sys.exception()):
        return error_page(request, known)
    error = LorasiteError(
        _("Something broke on our side. Nothing that you had stored is lost; the details are in the server's log.")
    )
    error.code, error.status = "server_error", 500
    return error_page(request, error)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return error_page(
        request, NotAllowed(_("This form is too old or came from elsewhere. Reload the page and send it again."))
    )
