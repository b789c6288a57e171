"""Codes of the second factor: each works once, in all processes and after a restart, and wrong ones are counted.

allauth remembers a used code for one period, but TOTP_TOLERANCE accepts it for three (RFC 6238, 5.2).
"""

import hashlib
from datetime import timedelta

from allauth.mfa.adapter import get_adapter
from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from allauth.mfa.base.internal.flows import check_rate_limit
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.forms import ActivateTOTPForm
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .backends import TooManyTriesError
from .models import UsedCode, User

KEPT = timedelta(minutes=5)  # ten periods of 30 s; a code is valid for three


class TooManyCodesError(TooManyTriesError):
    message = _("Too many wrong codes for this account. Wait five minutes, then try again.")


class _SingleUse:
    """Mixin for allauth's forms that ask for a code: a code that was used before is wrong."""

    def clean_code(self) -> str:
        """Return a correct code and use it up; a used one gets the message of a wrong one."""
        code: str = super().clean_code()  # type: ignore[misc]  # of the form that this is mixed into
        if not use_up(self.user, code):  # type: ignore[attr-defined]  # likewise
            raise get_adapter().validation_error("incorrect_code")
        return code


class Authenticate(_SingleUse, AuthenticateForm):
    pass


class Reauthenticate(_SingleUse, ReauthenticateForm):
    pass


class Activate(_SingleUse, ActivateTOTPForm):
    """The code that sets up the app is used up by that; it does not sign in as well."""


def use_up(user: User, code: str) -> bool:
    """Store a correct code as used; return False if it was used before.

    Of two requests at the same moment, the database's unique constraint accepts one.
    """
    UsedCode.objects.filter(used_at__lt=timezone.now() - KEPT).delete()
    normalised = "".join(filter(str.isalnum, code)).upper()  # people type spaces or hyphens between groups
    try:
        with transaction.atomic():
            UsedCode.objects.create(user=user, code=hashlib.sha256(normalised.encode()).hexdigest())
    except IntegrityError:
        return False
    return True


def code_fits(user: User, code: str) -> bool:
    """Return whether a code of the authenticator app, or a recovery code, is correct, and use it up. For the API.

    Wrong codes count together with those that are entered on the pages.
    """
    if not code:
        return False
    try:
        reset_limit = check_rate_limit(user)
    except ValidationError:
        raise TooManyCodesError from None
    # A security key signs in with a browser's help only, so an API cannot use it.
    authenticators = Authenticator.objects.filter(user=user).exclude(type=Authenticator.Type.WEBAUTHN)
    is_correct = any(authenticator.wrap().validate_code(code) for authenticator in authenticators)
    if not is_correct or not use_up(user, code):
        return False
    reset_limit()
    return True
