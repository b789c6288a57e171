"""Audit entries for signals of Django and other packages: signing in and out, second factors, changes in the admin."""

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authentication_failed
from axes.signals import user_locked_out
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal, receiver
from django.utils.translation import override

from .services import record

_ADMIN_ACTIONS = {ADDITION: "admin.add", CHANGE: "admin.change", DELETION: "admin.delete"}


@receiver([user_logged_in, user_logged_out])
def signed_in_or_out(signal: Signal, user: AbstractBaseUser | None, **kwargs: Any) -> None:
    """Record a sign-in or a sign-out. A sign-out has no user if nobody was signed in."""
    if user is not None:
        record("user.login" if signal is user_logged_in else "user.logout", user=user)


@receiver([user_login_failed, user_locked_out])
def sign_in_refused(
    signal: Signal, credentials: dict[str, Any] | None = None, username: str | None = None, **kwargs: Any
) -> None:
    """Record a wrong password (the signal brings `credentials`), or a lock-out after too many (`username`)."""
    name = username or (credentials or {}).get("username") or ""
    action = "user.locked_out" if signal is user_locked_out else "user.login"
    record(action, result="refused", username=str(name)[:150])  # it may be of no account, and of any length


@receiver(authentication_failed)
def wrong_code(user: AbstractBaseUser, **kwargs: Any) -> None:
    record("second_factor.check", user=user, obj=user, result="refused")


@receiver([post_save, post_delete], sender=Authenticator)
def second_factor_changed(signal: Signal, instance: Authenticator, created: bool = False, **kwargs: Any) -> None:
    """Record that a second factor was added or removed. Saving an old one again, as for a used code, is neither."""
    if signal is post_delete:
        record("second_factor.remove", obj=instance.user, kind=instance.type)
    elif created:
        record("second_factor.add", obj=instance.user, kind=instance.type)


@receiver(post_save, sender=LogEntry)
def changed_in_admin(instance: LogEntry, created: bool, **kwargs: Any) -> None:
    """Record a change made in the admin: Django writes a LogEntry for each, whichever app the model belongs to."""
    if created:
        with override("en"):  # entries are in English, whatever language the administrator reads
            changes = instance.get_change_message()
        record(
            _ADMIN_ACTIONS[instance.action_flag], user=instance.user, obj=instance.get_edited_object(), changes=changes
        )
