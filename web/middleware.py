"""Checks of every request, and what every API response has: a version, and an ETag."""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response, patch_cache_control, set_response_etag
from django.utils.translation import gettext as _

from web import disk
from web.error_responses import BusyReceiving, Unreadable, error_page
from web.errors import InvalidError, LorasiteError, RequestTooLargeError

VERSION_HEADER = "X-API-Version"
NEWEST = "1"
KNOWN = ("1",)

GetResponse = Callable[[HttpRequest], HttpResponse]


class UnknownVersion(InvalidError):
    code = "unknown_version"


class ProxyMiddleware:
    """Trust only the last TRUSTED_PROXIES hops of X-Forwarded-For; clients can forge the earlier ones."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.TRUSTED_PROXIES:
            hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
            if hops:
                request.META["REMOTE_ADDR"] = hops[-min(settings.TRUSTED_PROXIES, len(hops))]
        return self.get_response(request)


class DiskSpaceMiddleware:
    """Keep the reserve of disk space, and refuse a large body that the disk has no room to store."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        disk.keep_reserve()
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= disk.SMALL or disk.has_disk_space(length):
            return self.get_response(request)
        return error_page(request, disk.DiskFullError())


class PrivateMiddleware:
    """Keep responses out of every cache unless the view sets Cache-Control itself.

    On a shared computer, *Back* must not show a page after its user signed out. This does not depend on a session,
    because pages for anonymous visitors carry form tokens, too.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class NulMiddleware:
    """Refuse a NUL character in an address or a form: none of our texts has one, and PostgreSQL cannot store it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        query = request.META.get("QUERY_STRING", "").encode()
        try:
            form = request.body if request.content_type == "application/x-www-form-urlencoded" else b""
        except RequestDataTooBig:
            return error_page(request, RequestTooLargeError())
        if "\0" in request.path or any(nul in sent for nul in (b"%00", b"\0") for sent in (query, form)):
            return error_page(request, Unreadable())
        return self.get_response(request)


class BodyMiddleware:
    """Report why the web server did not keep a request's body. Upload views report files over the limit themselves."""

    REFUSED: dict[str, type[LorasiteError]] = {
        "too_large": RequestTooLargeError,
        "busy": BusyReceiving,
        "disk_full": disk.DiskFullError,
    }

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        reason = request.META.get("webserver.refused", "")
        if reason in self.REFUSED and not (reason == "too_large" and request.path in settings.UPLOAD_ADDRESSES):
            return error_page(request, self.REFUSED[reason]())
        return self.get_response(request)


class ApiMiddleware:
    """Check the X-API-Version header (default: newest) and the body's size; add the version and an ETag to responses."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(settings.API_PREFIX):
            return self.get_response(request)
        refusal = self._refuse_version(request) or self._refuse_large_body(request)
        response = refusal or add_etag(request, self.get_response(request))
        response[VERSION_HEADER] = NEWEST
        return response

    def _refuse_version(self, request: HttpRequest) -> HttpResponse | None:
        if request.headers.get(VERSION_HEADER, NEWEST) in KNOWN:
            return None
        message = _("Supported API versions: %(known)s.") % {"known": ", ".join(KNOWN)}
        return error_page(request, UnknownVersion(message, field=VERSION_HEADER))

    def _refuse_large_body(self, request: HttpRequest) -> HttpResponse | None:
        """Refuse before anything reads the body. Multipart uploads have a limit of their own."""
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= settings.API_BODY_LIMIT or request.content_type == "multipart/form-data":
            return None
        return error_page(request, RequestTooLargeError(limit_bytes=settings.API_BODY_LIMIT))


def add_etag(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Add an ETag to the response of a GET, unless the view set a cheaper one; return 304 if the client has it already."""
    if request.method != "GET" or response.status_code not in (200, 304) or response.streaming:
        return response
    # A program may cache a response that it revalidates. A browser with a session may not: *Back* would show the
    # response without asking the server (see PrivateMiddleware).
    if "Authorization" in request.headers:
        patch_cache_control(response, private=True, no_cache=True)
    if response.status_code == 304:
        return response
    if not response.has_header("ETag"):
        set_response_etag(response)
    return get_conditional_response(request, etag=response["ETag"], response=response) or response
