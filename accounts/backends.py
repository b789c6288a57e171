"""Lock out clients that guess passwords. django-axes counts wrong ones, for the page and the API alike."""

from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.exceptions import AxesBackendPermissionDenied
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from web.errors import LorasiteError


class TooManyTriesError(LorasiteError):
    code = "too_many_tries"
    status = 429
    message = _("Too many wrong passwords for this account from your address. Wait five minutes, then try again.")

    @property
    def wait(self) -> int:
        """Return the seconds until another try."""
        return int(settings.AXES_COOLOFF_TIME.total_seconds())


class LockoutBackend(AxesStandaloneBackend):
    """Refuse a client after too many wrong passwords, before its password is checked; never sign anybody in itself.

    Tries count per account and address, so that nobody can lock others out.
    """

    def authenticate(self, request: HttpRequest | None, username: str | None = None, **credentials: Any) -> None:
        """Raise TooManyTriesError while the client is locked out."""
        if request is None:  # no client, as in tests and commands
            return
        try:
            super().authenticate(request, username=username, **credentials)
        except AxesBackendPermissionDenied:
            raise TooManyTriesError from None
