import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from . import context


class RequestMiddleware:
    """Gives each request an id (also in the X-Request-ID answer header) and lets record() know who acts from where."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.id = str(uuid.uuid4())  # type: ignore[attr-defined]
        token = context.enter(context.Context(request, request.META.get("REMOTE_ADDR") or None, request.id))  # type: ignore[attr-defined]
        try:
            response = self.get_response(request)
        finally:
            context.leave(token)
        response["X-Request-ID"] = request.id  # type: ignore[attr-defined]
        return response
