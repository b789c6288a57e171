"""Errors below /v1/ in the shape that clients of OpenAI's API read: {"error": {message, type, param, code}}."""

from typing import Any

from django.http import HttpRequest
from rest_framework.request import Request

from web.errors import LorasiteError

PREFIX = "/v1/"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# OpenAI's codes for what has other codes in the rest of the API.
CODES = {
    "authentication_failed": "invalid_api_key",
    "not_authenticated": "invalid_api_key",
    "too_often": "rate_limit_exceeded",
    "throttled": "rate_limit_exceeded",
    "overloaded": "rate_limit_exceeded",
}


def is_openai(request: HttpRequest | Request) -> bool:
    """Return whether the request is to the part of the API that speaks as OpenAI's."""
    return request.path.startswith(PREFIX)


def openai_error(error: LorasiteError) -> dict[str, Any]:
    """Return the body of an error as OpenAI's API has it; `param` is the first field at fault."""
    problem = error.problems[0] if error.problems else {"field": None, "message": error.message}
    code = CODES.get(error.code, error.code)
    if (code, problem["field"]) == ("not_found", "model"):
        code = "model_not_found"
    usual = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": str(problem["message"]),
            "type": TYPES.get(error.status, usual),
            "param": problem["field"],
            "code": code,
        }
    }
