from typing import Any

from django.http import HttpRequest

from training.selectors import running_count


def site(request: HttpRequest) -> dict[str, Any]:
    """What every page's frame shows."""
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("lorasite_theme", "")
    return {
        "running_tasks": running_count(user) if user and user.is_authenticated else 0,
        "theme": theme if theme in ("light", "dark") else "",
    }
