"""Which user a command of manage.py acts for."""

from django.core.management.base import CommandError

from accounts.models import User
from web.commands import MISSING


def person(name: str | None) -> User:
    """Return the user of that name, or the first administrator of the installation."""
    people = User.objects.filter(is_active=True)
    user = people.filter(username=name).first() if name else people.filter(is_superuser=True).order_by("pk").first()
    if user is None:
        message = f"There is no user {name}." if name else "There is no administrator yet; `make start` creates one."
        raise CommandError(message, returncode=MISSING)
    return user
