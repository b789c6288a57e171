import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from accounts.requests import address_of

from . import context


class RequestMiddleware:
    """Gives each request an id (also in the X-Request-ID answer header) and lets record() know who acts from where."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid.uuid4())
        request.id = request_id  # type: ignore[attr-defined]  # the error page shows it
        token = context.enter(context.Context(request, address_of(request), request_id))
        try:
            response = self.get_response(request)
        finally:
            context.leave(token)
        response["X-Request-ID"] = request_id
        return response
