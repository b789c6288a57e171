"""Take back what was just done: a message with a button, whose signed token names the reverse call.

Each app registers its reverse calls with `@undoes`. They check permissions and record what they do like any other action.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from .errors import ConflictError

SALT = "undo"
OFFERED_SECONDS = 600
UndoFunction = Callable[..., str]  # called with the user and the arguments; returns a message

_functions: dict[str, UndoFunction] = {}


class TooLateError(ConflictError):
    code = "too_late"
    message = gettext_lazy("This can no longer be undone. Nothing was changed.")


def undoes(action: str) -> Callable[[UndoFunction], UndoFunction]:
    """Register the function that takes back an action."""

    def register(function: UndoFunction) -> UndoFunction:
        _functions[action] = function
        return function

    return register


def offer_undo(request: HttpRequest, message: str, action: str, **arguments: Any) -> None:
    """Show a message with a button that takes back an action. `arguments` are JSON, and not secret to the user."""
    content = {"user": request.user.pk, "action": action, "arguments": arguments}
    messages.success(request, message, extra_tags=signing.dumps(content, salt=SALT, compress=True))


@login_required
@require_POST
def undo(request: HttpRequest) -> HttpResponse:
    """Take back what the token names, for the person to whom it was offered."""
    try:
        content = signing.loads(request.POST.get("token", ""), salt=SALT, max_age=OFFERED_SECONDS)
    except signing.BadSignature:
        raise TooLateError from None
    if content["user"] != request.user.pk:
        raise TooLateError
    messages.success(request, _functions[content["action"]](request.user, **content["arguments"]))
    page = request.POST.get("page", "")
    return redirect(page if url_has_allowed_host_and_scheme(page, allowed_hosts=None) else "home")
