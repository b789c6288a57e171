"""Accounts as audit entries: signing in and out, new passwords."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver

from accounts.signals import password_changed

from .services import record


@receiver(user_logged_in)
def signed_in(user: Any, **kwargs: Any) -> None:
    record("user.login", user=user)


@receiver(user_logged_out)
def signed_out(user: Any, **kwargs: Any) -> None:
    if user is not None:
        record("user.logout", user=user)


@receiver(user_login_failed)
def refused(credentials: dict[str, Any], **kwargs: Any) -> None:
    record("user.login", result="refused", username=str(credentials.get("username", ""))[:150])


@receiver(password_changed)
def new_password(user: Any, **kwargs: Any) -> None:
    record("user.password_change", obj=user)
