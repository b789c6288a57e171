"""Links for new passwords: Django's, which end with a sign-in or a new password, and with any change of role too.

A link that an administrator made also ends when the maker's role changes or the maker's account is closed.
"""

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from .models import Standing, User


class ResetTokens(PasswordResetTokenGenerator):
    """Tokens `<time>-<hash>` of mailed links, and `<time>-<hash>_<maker's key>` of those that an administrator passes on."""

    key_salt = "accounts.reset_links"

    def __init__(self, maker: User | None = None) -> None:
        super().__init__()
        self.maker = maker

    def make_token(self, user: Any) -> str:
        token: str = super().make_token(user)
        return f"{token}_{self.maker.pk}" if self.maker else token

    def check_token(self, user: Any, token: str | None) -> bool:
        plain, _mark, key = (token or "").partition("_")
        if not key:
            return bool(PasswordResetTokenGenerator.check_token(ResetTokens(), user, plain))
        maker = User.objects.filter(pk=key).first() if key.isascii() and key.isdigit() and len(key) < 19 else None
        return maker is not None and bool(PasswordResetTokenGenerator.check_token(ResetTokens(maker), user, plain))

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        made_by = f"{self.maker.pk} {standing_of(self.maker)}" if self.maker else ""
        return f"{super()._make_hash_value(user, timestamp)} {standing_of(user)} {made_by}"


def standing_of(user: User) -> str:
    """The person's role, and since when: another value after each change, even after one that was taken back."""
    since = Standing.objects.filter(user=user).values_list("since", flat=True).first()
    return f"{user.role if user.is_active else 'closed'} {since and since.isoformat()}"


def reset_path(person: User, *, maker: User | None = None) -> str:
    uid = urlsafe_base64_encode(force_bytes(person.pk))
    return reverse("password_reset_confirm", args=[uid, ResetTokens(maker).make_token(person)])
