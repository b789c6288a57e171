"""System checks of an installation that other machines can reach. `manage.py start`, every command and the web server run them."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register, run_checks
from django.core.exceptions import ImproperlyConfigured

TAG = "lorasite"
WELL_KNOWN = ("django-insecure", "changeme", "change-me", "secret", "default", "example", "password", "test")
SHORTEST_KEY = 32  # characters
FEWEST_CHARACTERS = 8  # different ones in a key


@register(TAG)
def check_exposed_site(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return what is unsafe if the web server listens on more than this machine's loopback."""
    try:
        is_local = ip_address(settings.HOST).is_loopback
    except ValueError:
        is_local = settings.HOST == "localhost"
    if is_local:
        return []
    messages: list[CheckMessage] = []
    if settings.DEBUG:
        hint = "Remove DEBUG, or HOST."
        messages.append(
            Error("DEBUG shows source code and settings to anyone who causes an error.", hint=hint, id="lorasite.E001")
        )
    key = settings.SECRET_KEY
    if len(key) < SHORTEST_KEY or len(set(key)) < FEWEST_CHARACTERS or key.lower().startswith(WELL_KNOWN):
        hint = "Remove SECRET_KEY: a strong one is generated and stored in DATA_DIR."
        messages.append(
            Error("SECRET_KEY can be guessed, so anyone can sign in as anyone.", hint=hint, id="lorasite.E002")
        )
    if "*" in settings.ALLOWED_HOSTS:
        hint = "List the host names in ALLOWED_HOSTS, such as lora.example.org."
        messages.append(
            Error("ALLOWED_HOSTS accepts every name, so links in e-mail can be forged.", hint=hint, id="lorasite.E003")
        )
    if not settings.SESSION_COOKIE_SECURE:
        hint = "Put a reverse proxy with TLS in front and set BEHIND_HTTPS=true."
        messages.append(Warning("Passwords and tokens are sent unencrypted.", hint=hint, id="lorasite.W001"))
    return messages


def refuse_unsafe_settings() -> None:
    """Raise ImproperlyConfigured if a check fails. For the web server, which runs without a command."""
    errors = [f"{m.id}: {m.msg} {m.hint}" for m in run_checks(tags=[TAG]) if m.is_serious()]
    if errors:
        raise ImproperlyConfigured(" ".join(errors))
