"""Checks of every request, and what every API response has: a version, and an ETag."""

from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.contrib.messages import get_messages
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.http import ConditionalGetMiddleware
from django.shortcuts import resolve_url
from django.template.loader import render_to_string
from django.utils.cache import patch_cache_control
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django_htmx.http import HTMX_STOP_POLLING

from web import disk
from web.error_responses import BusyReceivingError, UnreadableRequestError, error_page
from web.errors import InvalidError, LorasiteError, RequestTooLargeError
from web.requests import is_api

VERSION_HEADER = "X-API-Version"
NEWEST = "1"
KNOWN = ("1",)


class UnknownVersionError(InvalidError):
    code = "unknown_version"


class ProxyMiddleware(MiddlewareMixin):
    """Trust only the last TRUSTED_PROXIES hops of X-Forwarded-For; clients can forge the earlier ones."""

    def process_request(self, request: HttpRequest) -> None:
        if not settings.TRUSTED_PROXIES:
            return
        header = request.META.get("HTTP_X_FORWARDED_FOR", "")
        hops = [hop.strip() for hop in header.split(",") if hop.strip()]
        # The last hop was written by the proxy nearest to us, the one before by the next, and so on.
        if hops:
            trusted = min(settings.TRUSTED_PROXIES, len(hops))
            request.META["REMOTE_ADDR"] = hops[-trusted]


class DiskSpaceMiddleware(MiddlewareMixin):
    """Keep the reserve of disk space, and refuse a large body that the disk has no room to store."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        disk.keep_reserve()
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= disk.SMALL:
            return None
        if not disk.has_disk_space(length):
            return error_page(request, disk.InsufficientStorageError())
        return None


class PrivateMiddleware(MiddlewareMixin):
    """Keep responses out of every cache unless the view sets Cache-Control itself.

    On a shared computer, *Back* must not show a page after its user signed out. This does not depend on a session,
    because pages for anonymous visitors carry form tokens, too.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class SessionEndedMiddleware(MiddlewareMixin):
    """Keep what is on a page when its session has ended: session.js opens a dialog, and fills a form that was sent.

    htmx follows redirects and would put the whole sign-in page into a part of this one, so it is answered 401. After a
    form, signing in leads back to the page of the form; many addresses that take forms have no page.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not is_redirect_to_sign_in(response):
            return response
        if request.headers.get("HX-Request") == "true":
            sentence = _("Your session has ended. Sign in again.")
            return HttpResponse(sentence, status=401, content_type="text/plain; charset=utf-8")
        if request.method == "POST":
            return redirect_to_login(page_of_form(request))
        return response


class ToastMiddleware(MiddlewareMixin):
    """Send messages along with the part of a page that htmx asked for; they are added to the toasts of that page."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_swapped = response.status_code in (200, HTMX_STOP_POLLING) and isinstance(response, HttpResponse)
        if request.headers.get("HX-Request") != "true" or not is_swapped or not get_messages(request):
            return response
        if response.headers["Content-Type"].startswith("text/html"):
            toasts = render_to_string("parts/toasts.html", {"messages": get_messages(request)}, request)
            response.write(f'<div hx-swap-oob="beforeend:#toasts">{toasts}</div>')
        return response


def is_redirect_to_sign_in(response: HttpResponseBase) -> bool:
    """Return whether a page asks a visitor to sign in and come back."""
    if "Location" not in response.headers:
        return False  # above all of the model server, which has no page to sign in on
    target = urlsplit(response.headers["Location"])
    return target.path == resolve_url(settings.LOGIN_URL) and "next" in parse_qs(target.query)


def page_of_form(request: HttpRequest) -> str:
    """Return path and query of the page that sent a form, as the browser says; of the start page if it does not."""
    page = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(page, allowed_hosts={request.get_host()}):
        return resolve_url("home")
    parts = urlsplit(page)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


class NulMiddleware(MiddlewareMixin):
    """Refuse a NUL character in an address or a form: none of our texts has one, and PostgreSQL cannot store it."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        # Uploads are not searched: their files may hold any byte, and their fields are checked by forms.
        query = request.META.get("QUERY_STRING", "").encode()
        try:
            form = request.body if request.content_type == "application/x-www-form-urlencoded" else b""
        except RequestDataTooBig:
            return error_page(request, RequestTooLargeError())
        if "\0" in request.path or any(nul in sent for nul in (b"%00", b"\0") for sent in (query, form)):
            return error_page(request, UnreadableRequestError())
        return None


class BodyMiddleware(MiddlewareMixin):
    """Report why the web server did not keep a request's body. Upload views report files over the limit themselves."""

    REFUSED: dict[str, type[LorasiteError]] = {
        "too_large": RequestTooLargeError,
        "busy": BusyReceivingError,
        "disk_full": disk.InsufficientStorageError,
    }

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        reason = request.META.get("webserver.refused", "")
        if reason not in self.REFUSED:
            return None
        if reason == "too_large" and request.path in settings.UPLOAD_ADDRESSES:
            return None
        error = self.REFUSED[reason]()
        return error_page(request, error)


class ApiMiddleware(ConditionalGetMiddleware):
    """Check the X-API-Version header and the body's size; add the version and, through Django's middleware, an ETag.

    Pages get no ETag: each rendering has another form token, so none would ever match.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Refuse an unknown version or a body that is too large before anything reads it."""
        if not is_api(request):
            return None
        if request.headers.get(VERSION_HEADER, NEWEST) not in KNOWN:
            message = _("Supported API versions: %(known)s.") % {"known": ", ".join(KNOWN)}
            return error_page(request, UnknownVersionError(message, field=VERSION_HEADER))
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        is_upload = request.content_type == "multipart/form-data"  # uploads have a limit of their own
        if length > settings.API_BODY_LIMIT and not is_upload:
            return error_page(request, RequestTooLargeError(limit_bytes=settings.API_BODY_LIMIT))
        return None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add the version, and an ETag to the whole response of a GET; answer 304 if the client has that already."""
        if not is_api(request):
            return response
        # Not a file that is streamed: its ETag would need all of it in memory.
        if request.method == "GET" and response.status_code in (200, 304) and isinstance(response, HttpResponse):
            # A program may cache a response that it revalidates. A browser with a session may not: *Back* would show
            # the response without asking the server (see PrivateMiddleware).
            if "Authorization" in request.headers:
                patch_cache_control(response, private=True, no_cache=True)
            if response.status_code == 200:  # a view that answers 304 itself has compared a cheaper ETag
                response = super().process_response(request, response)
        response.headers[VERSION_HEADER] = NEWEST
        return response
