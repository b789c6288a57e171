"""The one place where an error becomes a response: a page for people, problem+json (RFC 9457) for programs.

Programs that speak to /v1/ get errors in the shape of OpenAI's API.
"""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views import defaults
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from web import disk
from web.errors import InvalidError, LorasiteError, NotAllowedError, NotFoundError, RequestTooLargeError, is_panic
from web.openai_errors import is_openai, openai_error
from web.requests import is_api
from web.sentences import join_translated

log = logging.getLogger(__name__)


class BusyReceivingError(LorasiteError):
    code = "busy"
    status = 503
    wait = 10  # seconds
    message = gettext_lazy("Too many large files are arriving at once; nothing was stored. Try again in a moment.")


class UnreadableRequestError(LorasiteError):
    code = "unreadable"
    status = 400
    message = gettext_lazy("Could not parse the request: nesting too deep, invalid Unicode, or a NUL character.")


class UnparsableBodyError(LorasiteError):
    code = "parse_error"
    status = 400


# What deep nesting, an unpaired surrogate and malformed forms raise, wherever they are met first.
UNREADABLE = (RecursionError, UnicodeEncodeError, SuspiciousOperation)


def problem(error: LorasiteError, request: HttpRequest | Request) -> dict[str, Any]:
    """Return the body of an RFC 9457 problem; the error's facts never override its standard members."""
    errors = [{**problem, "message": str(problem["message"])} for problem in error.problems]
    return {
        **error.facts,
        "type": f"about:blank#{error.code}",
        "title": str(error.message),
        "status": error.status,
        "code": error.code,
        "detail": join_translated(problem["message"] for problem in errors) or str(error.message),
        "errors": errors,
        "request_id": getattr(request, "id", ""),
    }


class ErrorMiddleware:
    """Render a LorasiteError that a page raised, and turn a panic of native code into an ordinary exception."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            return self.get_response(request)
        except BaseException as error:
            if not is_panic(error):
                raise
            # A panic is no Exception, so it would end the server for everybody.
            raise RuntimeError("Native code panicked.") from error

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the page for an error that users see. Other errors go on to Django, and end in `server_error`."""
        error = exception if isinstance(exception, LorasiteError) else disk_error_to_show(exception)
        if error is None:
            return None
        note_refusal(request, error)
        return error_page(request, error)


def disk_error_to_show(error: BaseException | None) -> LorasiteError | None:
    """Return the error to show if a full or read-only disk caused `error`, and log the traceback; else None."""
    if error is None:
        return None
    disk_error = disk.error_to_show(error)
    if disk_error:
        log.error("%s", disk_error, exc_info=error)
    return disk_error


def note_refusal(request: HttpRequest | Request, error: LorasiteError) -> None:
    """Note on the request that a role or scope forbids it; audit.middleware writes the entry."""
    if error.status == 403:
        django_request = request._request if isinstance(request, Request) else request
        django_request.refused_code = error.code  # type: ignore[attr-defined]  # ours


def error_page(request: HttpRequest, error: LorasiteError) -> HttpResponse:
    """Return the error as a page, or as JSON for the API and clients that do not accept HTML."""
    response: HttpResponse
    if is_openai(request):
        response = JsonResponse(openai_error(error), status=error.status)
    elif is_api(request) or not request.accepts("text/html"):
        body = problem(error, request)
        response = JsonResponse(body, status=error.status, content_type="application/problem+json")
    else:
        response = render(request, "error.html", {"error": error}, status=error.status)
    wait = getattr(error, "wait", None)
    if wait:
        response["Retry-After"] = str(int(wait))
    return response


def api_exception_handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Handle DRF's exceptions, so that every failure of the API has the same shape.

    Return None for an unexpected error: Django logs its traceback and calls `server_error`.
    """
    request: Request = context["request"]
    error = exception if isinstance(exception, LorasiteError) else error_from(exception)
    if error is None:
        return None
    set_rollback()
    note_refusal(request, error)
    headers = {}
    challenge = getattr(exception, "auth_header", None)
    if challenge:
        headers["WWW-Authenticate"] = challenge
    wait = getattr(exception, "wait", None)
    if wait:
        headers["Retry-After"] = str(int(wait))
    if is_openai(request):
        return Response(openai_error(error), status=error.status, headers=headers)
    body = problem(error, request)
    return Response(body, status=error.status, headers=headers, content_type="application/problem+json")


def error_from(exception: Exception) -> LorasiteError | None:
    """Return the error that a view of the API means by an exception of DRF or Django; None for an unexpected one."""
    if isinstance(exception, Http404):
        return NotFoundError()
    if isinstance(exception, PermissionDenied):
        return NotAllowedError()
    if isinstance(exception, RequestDataTooBig):
        return RequestTooLargeError()
    if isinstance(exception, UNREADABLE):
        return UnreadableRequestError()
    if not isinstance(exception, exceptions.APIException):
        return disk_error_to_show(exception)
    if isinstance(exception, exceptions.ParseError) and isinstance(exception.__context__, ValueError):
        return UnparsableBodyError(describe_json_fault(exception.__context__))
    messages = _flatten(exception.detail)
    # Beside its sentence, an error of a token has entries with these names; a field of a request may have them, too.
    no_fields = () if isinstance(exception, exceptions.ValidationError) else ("detail", "code", "messages")
    problems = [{"field": field, "message": message} for field, message in messages if field and field not in no_fields]
    if problems:
        error = InvalidError(_("Some fields are not valid."), problems=problems)
    else:
        error = InvalidError(join_translated(str(message) for _field, message in messages))
    error.status = exception.status_code
    error.code = exception.default_code
    return error


def describe_json_fault(error: ValueError) -> str:
    """Return what a JSON parser says of a body, in the reader's language; DRF passes on the parser's English words."""
    if isinstance(error, json.JSONDecodeError):
        message = _("The request body is not valid JSON. The error is at line %(line)s, column %(column)s.")
        return message % {"line": error.lineno, "column": error.colno}
    return _("The request body is not valid JSON.")


def _flatten(detail: object, field: str = "") -> list[tuple[str, str]]:
    """Return (field, message) pairs of DRF's nested error detail; fields of nested serializers are joined by dots."""
    if isinstance(detail, dict):
        pairs = []
        for name, part in detail.items():
            pairs += _flatten(part, f"{field}.{name}" if field else str(name))
        return pairs
    if isinstance(detail, list):
        return [pair for part in detail for pair in _flatten(part, field)]
    return [(field, str(detail))]


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer an address that no URL pattern matches."""
    return error_page(request, NotFoundError(_("There is no page at this address.")))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django calls bad. It takes a session that a full disk did not store for a deleted one."""
    if not isinstance(exception, SessionInterrupted):
        return defaults.bad_request(request, exception)
    cause: BaseException | None = exception
    while cause:
        disk_error = disk_error_to_show(cause)
        if disk_error:
            return error_page(request, disk_error)
        cause = cause.__context__
    message = _(
        "Your session ended while this request was in progress. Sign in again, then check whether it was stored."
    )
    return error_page(request, InvalidError(message))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an unexpected error. A full disk can surface here, too, when a middleware stores the session."""
    disk_error = disk_error_to_show(sys.exception())
    if disk_error:
        return error_page(request, disk_error)
    message = _("Something went wrong on our side. Your stored data is kept; the details are in the server's log.")
    error = LorasiteError(message)
    error.code = "server_error"
    error.status = 500
    return error_page(request, error)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without a valid CSRF token."""
    message = _("This form has expired or came from another site. Reload the page and send it again.")
    return error_page(request, NotAllowedError(message))
