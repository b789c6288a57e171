"""Variables of every template."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from training.selectors import running_count


def site(request: HttpRequest) -> dict[str, Any]:
    """Return what the frame around every page needs: the number of runs in progress, the chosen theme, the cookie of forms."""
    # A request that fails before the authentication middleware has no user, but its error page has a frame.
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("lorasite_theme", "")
    return {
        "running_tasks": running_count(user) if user and user.is_authenticated else 0,
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "theme": theme if theme in ("light", "dark") else "",
    }
