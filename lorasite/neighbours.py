"""Addresses of other services as Django's settings."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Mail:
    backend: str = "django.core.mail.backends.dummy.EmailBackend"
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    tls: bool = False


def mail(url: str) -> Mail:
    """Where mail goes: smtp:// (STARTTLS when a password is given), smtps://, console:, or nowhere."""
    found = urlsplit(url)
    if found.scheme == "console":
        return Mail("django.core.mail.backends.console.EmailBackend")
    if found.scheme not in ("smtp", "smtps"):
        return Mail()
    tls, password = found.scheme == "smtps", unquote(found.password or "")
    return Mail(
        "django.core.mail.backends.smtp.EmailBackend",
        found.hostname or "localhost",
        found.port or (465 if tls else 587 if password else 25),
        unquote(found.username or ""),
        password,
        starttls=bool(password) and not tls,
        tls=tls,
    )


def origin_of(url: str) -> str:
    """Scheme, host and port: where a form of ours may send the browser."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc}"
