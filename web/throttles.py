"""How often one person, and one address, may sign in, upload, train and predict: the same brake for pages and API."""

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from redis import RedisError
from rest_framework.throttling import SimpleRateThrottle

from web.errors import LorasiteError
from web.requests import network_of

log = logging.getLogger(__name__)


class Json:
    """How Django's Redis cache writes here. Its default is pickle, which runs what somebody put into Redis."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class TooOften(LorasiteError):
    code, status = "too_often", 429
    message = _("Too many requests in a short time; nothing was changed. Wait a little, then try again.")
    wait: float | None = None


class _Throttle(SimpleRateThrottle):
    """Counts in Redis, where every web process looks; without Redis nobody is held up."""

    @property
    def cache(self) -> Any:  # type: ignore[override]  # tests point it elsewhere
        return caches["throttles"]

    def __init__(self, scope: str) -> None:
        self.scope, self.rate = scope, settings.THROTTLES[scope] or None
        self.num_requests, self.duration = self.parse_rate(self.rate)

    def allow_request(self, request: Any, view: Any) -> bool:
        try:
            return super().allow_request(request, view)
        except RedisError as error:
            log.warning("Requests are not counted while Redis is away (%s).", error)
            return True

    def get_cache_key(self, request: Any, view: Any) -> str | None:
        who = self.who(request)
        return f"throttle:{self.scope}:{who}" if who else None

    def who(self, request: Any) -> str:
        raise NotImplementedError


class _ByPerson(_Throttle):
    def who(self, request: Any) -> str:
        return f"person:{request.user.pk}" if request.user.is_authenticated else ""


class _ByAddress(_Throttle):
    def who(self, request: Any) -> str:
        return f"address:{network_of(request) or ''}"


def throttles(scope: str) -> list[Callable[[], Any]]:
    """For `throttle_classes` of an API view: `scope` is a name in settings.THROTTLES."""
    return [lambda: _ByPerson(scope), lambda: _ByAddress(scope)]


def limited(scope: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For a page: its POSTs are counted."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.method == "POST":
                count(request, scope)
            return view(request, *args, **kwargs)

        return inner

    return decorate


def count(request: HttpRequest, scope: str) -> None:
    for make in throttles(scope):
        throttle = make()
        if not throttle.allow_request(request, None):
            refused = TooOften()
            refused.wait = throttle.wait()
            raise refused
