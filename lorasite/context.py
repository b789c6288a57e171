from typing import Any

from django.http import HttpRequest

from training.selectors import running_count


def site(request: HttpRequest) -> dict[str, Any]:
    """What every page's frame shows."""
    user = getattr(request, "user", None)
    return {"running_tasks": running_count(user) if user and user.is_authenticated else 0}
