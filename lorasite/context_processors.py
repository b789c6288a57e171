"""Variables of every template."""

from functools import partial
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from lists.views import DENSITY_COOKIE
from lorasite.navigation import navigation_of, running_badge
from notifications.selectors import count_unread


def site(request: HttpRequest) -> dict[str, Any]:
    """Return what the frame around every page needs.

    `navigation`, `running` and `unread` are functions, which templates call: a part of a page, as for a poll, has no frame and must
    not pay for it.
    """
    theme = request.COOKIES.get("lorasite_theme", "")
    frame: dict[str, Any] = {
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "theme": theme if theme in ("light", "dark") else "",
        "density": "compact" if request.COOKIES.get(DENSITY_COOKIE) == "compact" else "",
    }
    # A request that fails before the authentication middleware has no user, but its error page has a frame.
    user = getattr(request, "user", None)
    if user and user.is_authenticated:
        frame["navigation"] = partial(navigation_of, request, user)
        frame["running"] = partial(running_badge, user)
        frame["unread"] = partial(count_unread, user)
    return frame
