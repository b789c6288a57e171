"""The user that a command of manage.py acts as."""

from django.core.management.base import CommandError

from accounts.models import User
from web.commands import MISSING


def acting_user(name: str | None) -> User:
    """Return the active user with this name; without a name, the first administrator of the installation."""
    active = User.objects.filter(is_active=True)
    matching = active.filter(username=name) if name else active.filter(is_superuser=True).order_by("pk")
    user = matching.first()
    if user is None:
        message = f"There is no user {name}." if name else "There is no administrator yet; `make start` creates one."
        raise CommandError(message, returncode=MISSING)
    return user
