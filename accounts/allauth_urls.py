"""Addresses whose names django-allauth and Django's password reset know; what the installation has not switched on is 404."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.views import account_inactive, logout, reauthenticate
from allauth.socialaccount.providers.openid_connect import views as oidc
from django.conf import settings
from django.contrib.auth.views import PasswordResetDoneView
from django.urls import URLPattern, URLResolver, include, path
from django.utils.translation import gettext_lazy as _
from requests import RequestException

from web.errors import LorasiteError, NotFound

from . import views


class ProviderAway(LorasiteError):
    code, status = "sign_on_away", 503
    message = _("The sign-on service does not answer. Try again later, or sign in with a password if you have one.")


def asked(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that asks the provider of single sign-on, which may be away."""

    @wraps(view)
    def inner(request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(request, *args, **kwargs)
        except RequestException:
            raise ProviderAway from None

    return inner


def switched(setting: str, *patterns: Any, names: tuple[str, ...] = ()) -> list[Any]:
    """The patterns, of which those of these names (all where none is given) answer while the setting is on."""
    for pattern in patterns:
        _guard(setting, pattern, names)
    return list(patterns)


def _guard(setting: str, pattern: URLPattern | URLResolver, names: tuple[str, ...]) -> None:
    if isinstance(pattern, URLResolver):
        for inner in pattern.url_patterns:
            _guard(setting, inner, names)
    elif not names or pattern.name in names:
        pattern.callback = _only_if(setting, pattern.callback)


def _only_if(setting: str, view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(settings, setting):
            raise NotFound
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
    *switched(  # whoever has a second factor keeps it when the installation no longer offers one
        "SECOND_FACTOR",
        path("account/second-factor/", include("allauth.mfa.urls")),
        names=("mfa_activate_totp", "mfa_add_webauthn"),
    ),
    *switched(
        "SINGLE_SIGN_ON",
        path("sso/<str:provider_id>/login/", asked(oidc.login), name="openid_connect_login"),
        path("sso/<str:provider_id>/callback/", asked(oidc.callback), name="openid_connect_callback"),
        path("sso/", include("allauth.socialaccount.urls")),
    ),
]
