import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from web.requests import address_of

from . import context
from .services import record


class RequestMiddleware:
    """Give each request an id (also in the X-Request-ID answer header) and let record() know who acts from where.

    A signed-in person who asks for what their role or token's scope forbids becomes an entry of the log, too. It is written
    after the view, because a transaction that the view rolls back would take the entry with it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid.uuid4())
        request.id = request_id  # type: ignore[attr-defined]  # the error page shows it
        token = context.enter(context.Context(request, address_of(request), request_id))
        try:
            response = self.get_response(request)
            self._record_refusal(request)
        finally:
            context.leave(token)
        response["X-Request-ID"] = request_id
        return response

    def _record_refusal(self, request: HttpRequest) -> None:
        code = getattr(request, "refused_code", None)
        if code and request.user.is_authenticated:
            path = request.path[:200]
            record("request.refused", result="refused", method=request.method, path=path, code=code)
