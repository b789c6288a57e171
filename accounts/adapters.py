"""Adapters of django-allauth: who may have an account, how secrets are stored, what address a client has."""

import base64
import hashlib
import string
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from cryptography.fernet import Fernet
from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import get_random_string

from audit.services import record
from web.requests import client_address

from . import usernames
from .models import Role, User


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Close allauth's own sign-up: people join by invitation, or through single sign-on."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        # allauth refuses a request without an address, such as one over a Unix socket.
        return client_address(request) or "127.0.0.1"

    def clean_username(self, username: str, shallow: bool = False) -> str:
        """Return a name from single sign-on as it is stored; with `shallow`, do not check whether it is free.

        Raise ValidationError for a name that only administrators can give, and for one that looks like another person's.
        """
        username = super().clean_username(username, shallow)
        usernames.refuse_official(username)
        if not shallow and usernames.find_lookalikes(User.objects.all(), username):
            raise self.validation_error("username_taken")
        return username

    def generate_unique_username(self, txts: list[str], regex: str | None = None) -> str:
        """Return a name as allauth generates it, extended by digits until it looks like nobody else's.

        allauth looks for the same name only, and does not know which letters look alike.
        """
        name = super().generate_unique_username(txts, regex)
        while usernames.find_lookalikes(User.objects.all(), name):
            name = super().generate_unique_username([name + get_random_string(4, string.digits)])
        return name

    def send_notification_mail(self, *args: Any, **kwargs: Any) -> None:
        """Send nothing: the audit log records these events, and mail may not be configured."""


class SecondFactorAdapter(DefaultMFAAdapter):
    """Encrypt the secrets of authenticator apps, so that a copy of the database alone is not enough to compute codes."""

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _fernet().decrypt(encrypted_text.encode()).decode()


def _fernet() -> Fernet:
    """Return the cipher of the authenticator secrets; its key is derived from SECRET_KEY.

    With another SECRET_KEY the stored secrets cannot be decrypted, so everybody has to set up the app again.
    """
    # The prefix separates this key from other uses of the secret key.
    key = hashlib.sha256(b"second factor " + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))


class SingleSignOnAdapter(DefaultSocialAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return bool(settings.OIDC_SIGN_UP)

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: forms.Form | None = None) -> User:
        """Create the account as a viewer; an admin can change the role.

        Called at the first sign-in through the provider; later ones find the account.
        """
        user: User = super().save_user(request, sociallogin, form)
        user.set_role(Role.VIEWER)
        record("user.join", user=user, obj=user, by="single sign-on", role=str(Role.VIEWER))
        return user
