from django.contrib.auth.forms import PasswordChangeForm
from django.db import transaction

from .models import User
from .services import after_password_change


class EndsSessions:
    """For every form that gives somebody a new password."""

    @transaction.atomic
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)  # type: ignore[misc]  # of the form beside it
        after_password_change(user)
        return user


class PasswordForm(EndsSessions, PasswordChangeForm):
    """A new password of one's own; the old one is asked for."""
