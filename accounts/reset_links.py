"""Links with which a person sets a new password.

Django's links become invalid when the person signs in or gets a new password. Ours also do when the person's role changes.
A link that an administrator created also becomes invalid when the administrator's role changes or their account is closed.
"""

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from web.requests import parse_whole_number

from .models import Standing, User


class ResetTokens(PasswordResetTokenGenerator):
    """Tokens `<time>-<hash>` for mailed links, and `<time>-<hash>_<maker's key>` for links that an administrator passes on."""

    key_salt = "accounts.reset_links"

    def __init__(self, maker: User | None = None) -> None:
        super().__init__()
        self.maker = maker

    def make_token(self, user: Any) -> str:
        """Return Django's token, with the key of the administrator who passes it on."""
        token: str = super().make_token(user)
        return f"{token}_{self.maker.pk}" if self.maker else token

    def check_token(self, user: Any, token: str | None) -> bool:
        """Return whether the token is still valid for `user`, and whether its maker, if it names one, exists."""
        django_token, _separator, maker_key = (token or "").partition("_")
        maker = None
        if maker_key:
            number = parse_whole_number(maker_key)
            maker = User.objects.filter(pk=number).first() if number is not None else None
            if maker is None:
                return False
        # Django compares hashes, so the generator must have the maker that the token names.
        return bool(PasswordResetTokenGenerator.check_token(ResetTokens(maker), user, django_token))

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        """Return what the link depends on; once any of it changes, the link is invalid."""
        made_by = f"{self.maker.pk} {standing_of(self.maker)}" if self.maker else ""
        return f"{super()._make_hash_value(user, timestamp)} {standing_of(user)} {made_by}"


def standing_of(user: User) -> str:
    """Return the person's role and since when they have it: the value differs after each change, even a reverted one.

    For a person without a stored standing the time is "None".
    """
    role = user.role if user.is_active else "closed"
    standing = Standing.objects.filter(user=user).first()
    since = standing.since.isoformat() if standing else None
    return f"{role} {since}"


def reset_path(person: User, *, maker: User | None = None) -> str:
    """Return the path of a new link for `person`.

    `maker` is the administrator who passes it on; None for a link that is mailed to the person. It works once, until
    PASSWORD_RESET_TIMEOUT has passed.
    """
    uid = urlsafe_base64_encode(force_bytes(person.pk))
    token = ResetTokens(maker).make_token(person)
    return reverse("password_reset_confirm", args=[uid, token])
