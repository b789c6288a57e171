"""What an installation that others can reach must not be. `manage.py start`, every command and the web server ask."""

from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register, run_checks
from django.core.exceptions import ImproperlyConfigured

TAG = "lorasite"
WELL_KNOWN = ("django-insecure", "changeme", "change-me", "secret", "default", "example", "password", "test")
SHORTEST = 32


def reachable() -> bool:
    """Whether the web server listens on more than this machine."""
    try:
        return not ip_address(settings.HOST).is_loopback
    except ValueError:
        return bool(settings.HOST != "localhost")


@register(TAG)
def open_to_others(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not reachable():
        return []
    found: list[CheckMessage] = []
    if settings.DEBUG:
        hint = "Leave DEBUG out, or HOST."
        found.append(
            Error("DEBUG shows source code and settings to whoever causes an error.", hint=hint, id="lorasite.E001")
        )
    if _is_weak(settings.SECRET_KEY):
        hint = "Leave SECRET_KEY out: a good one is made and kept in DATA_DIR."
        found.append(
            Error("SECRET_KEY can be guessed, so anybody can sign in as anybody.", hint=hint, id="lorasite.E002")
        )
    if "*" in settings.ALLOWED_HOSTS:
        hint = "Name the hosts in ALLOWED_HOSTS, such as lora.example.org."
        found.append(
            Error("ALLOWED_HOSTS takes every name, so links in mails can be forged.", hint=hint, id="lorasite.E003")
        )
    if not settings.SESSION_COOKIE_SECURE:
        hint = "Put a reverse proxy with TLS in front and set BEHIND_HTTPS=true."
        found.append(Warning("Passwords and tokens travel in clear.", hint=hint, id="lorasite.W001"))
    return found


def _is_weak(key: str) -> bool:
    return len(key) < SHORTEST or len(set(key)) < 8 or key.lower().startswith(WELL_KNOWN)


def refuse_unsafe() -> None:
    """For the web server, which runs no command."""
    errors = [f"{m.id}: {m.msg} {m.hint}" for m in run_checks(tags=[TAG]) if m.is_serious()]
    if errors:
        raise ImproperlyConfigured(" ".join(errors))
