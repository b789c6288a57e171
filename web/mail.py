"""Whether this installation sends e-mail."""

from django.conf import settings


def mail_is_configured() -> bool:
    """Return whether EMAIL_URL names a server; without one, e-mail would vanish without an error."""
    return not settings.EMAIL_BACKEND.endswith("dummy.EmailBackend")
