"""What is asked of every request, and what every answer of the API has: a version, and a tag that tells of changes."""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response, patch_cache_control, set_response_etag
from django.utils.translation import gettext as _

from web import disk
from web.error_responses import BusyReceiving, Unreadable, error_page
from web.errors import Invalid, TooLarge

UPLOADS = (
    "/datasets/new/",
    "/api/datasets",
)  # addresses that take files; their views answer to ones that are too large
VERSION_HEADER = "X-API-Version"
NEWEST, KNOWN = "1", ("1",)


class UnknownVersion(Invalid):
    code = "unknown_version"


class ProxyMiddleware:
    """The caller's address as the outermost of our own proxies saw it; what stands before that anybody can write."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.TRUSTED_PROXIES:
            hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
            if hops:
                request.META["REMOTE_ADDR"] = hops[-min(settings.TRUSTED_PROXIES, len(hops))]
        return self.get_response(request)


class RoomMiddleware:
    """Keeps the reserve of disk space, and refuses what is large before it is written to a disk without room for it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        disk.keep_reserve()
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= disk.SMALL or disk.has_room(length):
            return self.get_response(request)
        drain(request, min(length, settings.UPLOAD_LIMIT))
        return error_page(request, disk.DiskFull())


class PrivateMiddleware:
    """Keep what views answer out of every cache, unless the view says otherwise.

    On a shared computer, *Back* must show nothing after signing out. It asks for no session, because the pages of
    strangers carry form tokens.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class SaneMiddleware:
    """Refuses a NUL in an address or a form: no name or text of ours has one, and PostgreSQL would stumble over it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        query = request.META.get("QUERY_STRING", "").encode()
        try:
            form = request.body if request.content_type == "application/x-www-form-urlencoded" else b""
        except RequestDataTooBig:
            return error_page(request, TooLarge())
        if "\0" in request.path or any(nul in sent for nul in (b"%00", b"\0") for sent in (query, form)):
            return error_page(request, Unreadable())
        return self.get_response(request)


class BodyMiddleware:
    """Says why the web server did not keep a request's body. Uploads over the limit are answered by their views."""

    REFUSED = {"too_large": TooLarge, "busy": BusyReceiving, "disk_full": disk.DiskFull}

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        reason = request.META.get("webserver.refused", "")
        if reason in self.REFUSED and not (reason == "too_large" and request.path in UPLOADS):
            return error_page(request, self.REFUSED[reason]())
        return self.get_response(request)


class ApiMiddleware:
    """`X-API-Version: 1` may be asked for; the newest where it is left out. Reads answer 304 to a tag that still holds."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/api/"):
            return self.get_response(request)
        refused = self._unknown_version(request) or self._too_large(request)
        response = refused or tagged(request, self.get_response(request))
        response[VERSION_HEADER] = NEWEST
        return response

    def _unknown_version(self, request: HttpRequest) -> HttpResponse | None:
        if request.headers.get(VERSION_HEADER, NEWEST) in KNOWN:
            return None
        message = _("This API speaks version %(known)s.") % {"known": ", ".join(KNOWN)}
        return error_page(request, UnknownVersion(message, field=VERSION_HEADER))

    def _too_large(self, request: HttpRequest) -> HttpResponse | None:
        """Before anything reads the body. What carries files has a limit of its own."""
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= settings.API_BODY_LIMIT or request.content_type == "multipart/form-data":
            return None
        drain(request, min(length, settings.API_BODY_LIMIT * 4))
        return error_page(request, TooLarge(limit_bytes=settings.API_BODY_LIMIT))


def drain(request: HttpRequest, left: int) -> None:
    """Read so many bytes of a body that is refused: a caller who still sends would not hear the answer."""
    while left > 0 and (chunk := request.read(min(left, 1 << 16))):
        left -= len(chunk)


def tagged(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """A view may have set a cheaper tag than the body's hash. A program may keep what it asks anew with the tag; a browser
    that carries a session may not: going back, it would show it unasked (PrivateMiddleware)."""
    if request.method != "GET" or response.status_code not in (200, 304) or response.streaming:
        return response
    if "Authorization" in request.headers:
        patch_cache_control(response, private=True, no_cache=True)
    if response.status_code == 304:
        return response
    if not response.has_header("ETag"):
        set_response_etag(response)
    return get_conditional_response(request, etag=response["ETag"], response=response) or response
