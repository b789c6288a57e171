"""Everything that changes an account."""

from django.db import transaction
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from .models import User
from .signals import password_changed


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
