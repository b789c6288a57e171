"""Rate limits per person and per address for signing in, uploading, training and predicting, on pages and in the API."""

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

from django.conf import settings
from django.core.cache import BaseCache, caches
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from redis import RedisError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from web.errors import LorasiteError
from web.requests import client_network

log = logging.getLogger(__name__)


class JsonSerializer:
    """Serializer of Django's Redis cache. Its default, pickle, would execute what somebody puts into Redis."""

    def dumps(self, value: object) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class TooManyRequestsError(LorasiteError):
    code = "too_often"
    status = 429
    message = _("Too many requests in a short time; nothing was changed. Wait a little, then try again.")
    wait: float | None = None  # seconds


class RateThrottle(SimpleRateThrottle):
    """Count requests of a scope in Redis, which all web processes share. While Redis is away, nobody is throttled.

    Reads are never counted: a client that lists what it uploaded must not use up its uploads.
    """

    def __init__(self, scope: str, per: Literal["person", "address"]) -> None:
        self.scope = scope
        self.per = per
        self.rate = settings.THROTTLES[scope] or None
        self.num_requests, self.duration = self.parse_rate(self.rate)

    @property
    def cache(self) -> BaseCache:  # type: ignore[override]  # looked up late, so that tests can replace it
        return caches["throttles"]

    def allow_request(self, request: HttpRequest | Request, view: APIView | None) -> bool:
        """Count the request unless it only reads, and return whether it is within the limit."""
        if request.method in SAFE_METHODS:
            return True
        try:
            return super().allow_request(request, view)  # type: ignore[arg-type]  # it only passes them on
        except RedisError as error:
            # Wrong passwords are still limited: django-axes counts them in the database.
            log.warning("Redis is unavailable, so requests are not throttled (%s).", error)
            return True

    def get_cache_key(self, request: HttpRequest | Request, view: APIView | None) -> str | None:
        """Return what the request is counted under; None (not counted) per person for somebody who is not signed in."""
        if self.per == "address":
            return f"throttle:{self.scope}:address:{client_network(request) or ''}"
        if request.user.is_authenticated:
            return f"throttle:{self.scope}:person:{request.user.pk}"
        return None


# Per person, because one person may come from many addresses; per address, because one client may use many accounts.
def throttle_classes_for(scope: str) -> list[Callable[[], RateThrottle]]:
    """Return the `throttle_classes` of an API view; `scope` is a name in settings.THROTTLES."""
    return [lambda: RateThrottle(scope, "person"), lambda: RateThrottle(scope, "address")]


def throttle_posts(scope: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a page so that its POST requests are counted against `scope`."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def throttled_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.method == "POST":
                count_request(request, scope)
            return view(request, *args, **kwargs)

        return throttled_view

    return decorate


def count_request(request: HttpRequest, scope: str) -> None:
    """Count a request against the limits of `scope`; raise TooManyRequestsError once one of them is reached."""
    for make_throttle in throttle_classes_for(scope):
        throttle = make_throttle()
        if not throttle.allow_request(request, None):
            error = TooManyRequestsError()
            error.wait = throttle.wait()
            raise error
