"""Codes of the second factor: each works once, in whichever process and after whichever restart; guesses are counted.

allauth remembers a used code for one period, but TOTP_TOLERANCE lets it be good for three (RFC 6238, 5.2).
"""

import hashlib
from datetime import timedelta
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from allauth.mfa.base.internal.flows import check_rate_limit
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.forms import ActivateTOTPForm
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .backends import TooManyTries
from .models import UsedCode, User

KEPT = timedelta(minutes=5)  # ten periods of 30 s; a code is good for three


class TooManyCodes(TooManyTries):
    message = _("Too many wrong codes for this account. Wait five minutes, then try again.")


class _SingleUse:
    """For allauth's forms that ask for a code."""

    def clean_code(self) -> str:
        code: str = super().clean_code()  # type: ignore[misc]  # of the form beside it
        if not use_up(self.user, code):  # type: ignore[attr-defined]  # likewise
            raise get_adapter().validation_error("incorrect_code")
        return code


class Authenticate(_SingleUse, AuthenticateForm):
    pass


class Reauthenticate(_SingleUse, ReauthenticateForm):
    pass


class Activate(_SingleUse, ActivateTOTPForm):
    """The code that sets the app up must not sign in as well."""


def use_up(user: Any, code: str) -> bool:
    """Note a right code as used; False where it was used before. Of two at the same moment, the database takes one."""
    UsedCode.objects.filter(used_at__lt=timezone.now() - KEPT).delete()
    plain = "".join(filter(str.isalnum, code)).upper()  # however it was grouped
    try:
        with transaction.atomic():
            UsedCode.objects.create(user=user, code=hashlib.sha256(plain.encode()).hexdigest())
    except IntegrityError:
        return False
    return True


def code_fits(user: User, code: str) -> bool:
    """For the API: a code of the authenticator app, or one of the recovery codes, which then is used up.

    Wrong ones count with those of the pages.
    """
    if not code:
        return False
    try:
        forgive = check_rate_limit(user)
    except ValidationError:
        raise TooManyCodes from None
    known = Authenticator.objects.filter(user=user).exclude(type=Authenticator.Type.WEBAUTHN)
    fits = any(authenticator.wrap().validate_code(code) for authenticator in known) and use_up(user, code)
    if fits:
        forgive()
    return fits
