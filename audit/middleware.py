import uuid
from collections.abc import Callable
from ipaddress import ip_address

from django.http import HttpRequest, HttpResponse

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


def address_of(request: HttpRequest) -> str | None:
    """The caller's address in the one form that every database gives back unchanged, so that an entry's hash holds."""
    try:
        found = ip_address(request.META.get("REMOTE_ADDR", "").partition("%")[0])
    except ValueError:  # a Unix socket has none
        return None
    return str(getattr(found, "ipv4_mapped", None) or found)
