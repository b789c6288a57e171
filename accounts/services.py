"""Everything that changes an account."""

from django.db import transaction
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from .models import Role, User
from .signals import password_changed, role_changed


@transaction.atomic
def end_tokens(user: User) -> None:
    """No refresh token of the person works from here on."""
    living = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in living], ignore_conflicts=True)


@transaction.atomic
def after_password_change(user: User) -> None:
    """Browser sessions and access tokens carry the password's hash, so they end by themselves; refresh tokens here."""
    end_tokens(user)
    password_changed.send(User, user=user)


@transaction.atomic
def change_role(user: User, role: Role, *, before: Role | None = None) -> None:
    """`before` is the role that the person had; nothing is announced where it is the same."""
    user.set_role(role)
    if role != before:
        role_changed.send(User, user=user, role=role)
