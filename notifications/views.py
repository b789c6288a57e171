"""The page of a person's notifications."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.http import SignedInRequest
from web.errors import LorasiteError
from web.mail import mail_is_configured
from web.throttles import throttle_posts

from . import services
from .forms import PreferencesForm

SHOWN = 10  # of the messages that were sent last


@login_required
@never_cache
@require_safe
def inbox(request: SignedInRequest) -> HttpResponse:
    """List how the person's runs ended. Opening the page takes all as read; HEAD does not open it."""
    if request.method == "HEAD":
        return HttpResponse()
    return render(request, "notifications/inbox.html", {"notices": services.read_notices(user=request.user)})


@login_required
@never_cache
@throttle_posts("validate")
def settings(request: SignedInRequest) -> HttpResponse:
    """Show and save what a person is told of. `do` names the button: save, secret (a new one) or test.

    A new secret is only on the page that answers.
    """
    do = request.POST.get("do", "save") if request.method == "POST" else ""
    preferences = services.preferences_of(request.user)
    form = PreferencesForm(request.POST if do == "save" else None, preferences=preferences)
    secret = ""
    if do == "test":
        services.send_test(user=request.user)
        messages.success(request, _("A test message is on its way. Reload this page to see whether it arrived."))
        return redirect("notifications:settings")
    if do == "secret":
        preferences = services.replace_secret(user=request.user)
        secret = preferences.webhook_secret
    if do == "save" and form.is_valid():
        salt = preferences.webhook_salt
        try:
            preferences = services.save_preferences(
                user=request.user, language=get_language() or "en", **form.cleaned_data
            )
        except LorasiteError as error:
            form.add_service_error(error)
        else:
            if preferences.webhook_salt in ("", salt):
                messages.success(request, _("Notification settings saved."))
                return redirect("notifications:settings")
            secret = preferences.webhook_secret
    context: dict[str, Any] = {
        "form": form,
        "secret": secret,
        "preferences": preferences,
        "mail": mail_is_configured(),
        "deliveries": request.user.deliveries.all()[:SHOWN],
    }
    return render(request, "notifications/settings.html", context, status=400 if form.errors else 200)
