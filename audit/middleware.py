import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from web.requests import client_address

from .context import Context, current_context
from .services import record


class RequestMiddleware:
    """Give each request an ID (also in the X-Request-ID response header), and let record() know who acts from where.

    Also record each request that was refused because of a signed-in person's role or token scope.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid.uuid4())
        request.id = request_id  # type: ignore[attr-defined]  # the error page shows it
        token = current_context.set(Context(request, client_address(request), request_id))
        try:
            response = self.get_response(request)
            # Written after the view, because a transaction that the view rolls back would remove the entry, too.
            refused_code = getattr(request, "refused_code", None)
            if refused_code and request.user.is_authenticated:
                path = request.path[:200]
                record("request.refused", result="refused", method=request.method, path=path, code=refused_code)
        finally:
            current_context.reset(token)
        response["X-Request-ID"] = request_id
        return response
