"""Addresses whose names django-allauth and Django's password reset expect. Those of features that are off answer 404."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.views import account_inactive, logout, reauthenticate
from allauth.socialaccount.providers.openid_connect import views as oidc
from django.conf import settings
from django.contrib.auth.views import PasswordResetDoneView
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, include, path
from django.utils.translation import gettext_lazy as _
from requests import RequestException

from web.errors import LorasiteError, NotFoundError

from . import views


class ProviderUnreachableError(LorasiteError):
    code = "sign_on_away"
    status = 503
    message = _("The sign-on service does not answer. Try again later, or sign in with a password if you have one.")


def report_unreachable_provider(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view that calls the single sign-on provider, which may be unreachable."""

    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(request, *args, **kwargs)
        except RequestException:
            raise ProviderUnreachableError from None

    return inner


Pattern = URLPattern | URLResolver


def enabled_by(setting: str, *patterns: Pattern, names: tuple[str, ...] = ()) -> list[Pattern]:
    """Return the patterns; those with one of `names` (default: all) answer 404 while the setting is off."""
    # The patterns are allauth's own objects, which this process includes once: replacing their views affects no other use.
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            enabled_by(setting, *pattern.url_patterns, names=names)
        elif not names or pattern.name in names:
            pattern.callback = _require_setting(setting, pattern.callback)
    return list(patterns)


def _require_setting(setting: str, view: Callable[..., Any]) -> Callable[..., Any]:
    # The setting is read per request, so that tests can change it.
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not getattr(settings, setting):
            raise NotFoundError
        return view(request, *args, **kwargs)

    return guarded


urlpatterns = [
    path("login/", views.SignIn.as_view(), name="account_login"),
    path("logout/", logout, name="account_logout"),
    path("login/closed/", account_inactive, name="account_inactive"),
    path("password/forgot/", views.ForgotPassword.as_view(), name="password_reset"),
    path(
        "password/forgot/sent/",
        PasswordResetDoneView.as_view(template_name="accounts/forgot_sent.html"),
        name="password_reset_done",
    ),
    path("password/new/<str:uidb64>/<str:token>/", views.NewPassword.as_view(), name="password_reset_confirm"),
    path("account/confirm/", reauthenticate, name="account_reauthenticate"),
    *enabled_by(  # people who have a second factor keep it when the installation no longer offers one
        "SECOND_FACTOR",
        path("account/second-factor/", include("allauth.mfa.urls")),
        names=("mfa_activate_totp", "mfa_add_webauthn"),
    ),
    *enabled_by(
        "SINGLE_SIGN_ON",
        path("sso/<str:provider_id>/login/", report_unreachable_provider(oidc.login), name="openid_connect_login"),
        path(
            "sso/<str:provider_id>/callback/",
            report_unreachable_provider(oidc.callback),
            name="openid_connect_callback",
        ),
        path("sso/", include("allauth.socialaccount.urls")),
    ),
]
