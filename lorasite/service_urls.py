"""Read the URLs of other services: where e-mail is sent, and the origin of the single sign-on provider."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class EmailServer:
    """Values of Django's EMAIL_* settings; the default sends nothing."""

    backend: str = "django.core.mail.backends.dummy.EmailBackend"
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    tls: bool = False


def parse_email_url(url: str) -> EmailServer:
    """Return the server that EMAIL_URL names.

    smtp:// uses STARTTLS if it has a password (port 587, else 25), smtps:// uses TLS from the start (port 465), console:
    prints e-mail, and anything else sends nothing. User and password may be percent-encoded.
    """
    # dj-email-url reads the same URLs with other results: a password of smtp:// travels in clear, and smtps:// means
    # STARTTLS, without a port.
    parts = urlsplit(url)
    if parts.scheme == "console":
        return EmailServer("django.core.mail.backends.console.EmailBackend")
    if parts.scheme not in ("smtp", "smtps"):
        return EmailServer()
    tls = parts.scheme == "smtps"
    password = unquote(parts.password or "")
    starttls = bool(password) and not tls
    default_port = 465 if tls else 587 if starttls else 25
    return EmailServer(
        backend="django.core.mail.backends.smtp.EmailBackend",
        host=parts.hostname or "localhost",
        port=parts.port or default_port,
        user=unquote(parts.username or ""),
        password=password,
        starttls=starttls,
        tls=tls,
    )


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, as a Content-Security-Policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
