"""A brake for who guesses passwords: before any password is looked at, on the page and the API alike."""

import hashlib
from contextlib import suppress
from typing import Any

from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.core.cache import cache
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .errors import LorasiteError

TRIES, SECONDS = 10, 300


class TooManyTries(LorasiteError):
    code, status, wait = "too_many_tries", 429, SECONDS
    message = _("Too many wrong passwords for this account from your address. Wait five minutes, then try again.")


class Brake:
    """An authentication backend that lets nobody in. It counts by account and address, so nobody locks others out."""

    def authenticate(self, request: Any, username: str | None = None, **credentials: Any) -> None:
        if request is not None and cache.get(_key(request, username), 0) >= TRIES:
            raise TooManyTries


@receiver(user_login_failed)
def count(credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
    if request is not None:
        key = _key(request, credentials.get("username"))
        if not cache.add(key, 1, SECONDS):
            with suppress(ValueError):  # the count has just run out
                cache.incr(key)


@receiver(user_logged_in)
def forgive(request: Any, user: Any, **kwargs: Any) -> None:
    if request is not None:
        cache.delete(_key(request, user.get_username()))


def _key(request: Any, username: str | None) -> str:
    who = f"{request.META.get('REMOTE_ADDR')} {username}"
    return f"sign-in-{hashlib.sha256(who.encode()).hexdigest()}"
