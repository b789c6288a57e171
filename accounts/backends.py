"""A lock for who guesses passwords: django-axes counts, before any password is looked at, on page and API alike."""

from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.exceptions import AxesBackendPermissionDenied
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from web.errors import LorasiteError


class TooManyTries(LorasiteError):
    code, status = "too_many_tries", 429
    message = _("Too many wrong passwords for this account from your address. Wait five minutes, then try again.")

    @property
    def wait(self) -> int:
        return int(settings.AXES_COOLOFF_TIME.total_seconds())


class LockOut(AxesStandaloneBackend):
    """Lets nobody in, and keeps out who has tried too often; by account and address, so that nobody locks others out."""

    def authenticate(self, request: Any, username: str | None = None, **credentials: Any) -> None:
        if request is None:
            return
        try:
            super().authenticate(request, username=username, **credentials)
        except AxesBackendPermissionDenied:
            raise TooManyTries from None
