"""The admin site: for administrators, behind the site's own sign-in, with a Content-Security-Policy that it works with."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from csp.decorators import csp_update
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.sites import UnfoldAdminSite

from web.access import require_admin

# Alpine evaluates expressions in attributes, and unfold sets its colours in an inline style.
POLICY = {"script-src": ["'self'", "'unsafe-eval'"], "style-src": ["'self'", "'unsafe-inline'"]}


class AdminSite(UnfoldAdminSite):
    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        # Django's bulk deletion bypasses the services, and logs several deletions without a signal for the audit log.
        self.disable_action("delete_selected")

    def has_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(user.is_active and user.is_authenticated and user.is_admin)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        """Wrap every view of the admin: a signed-in person who is no administrator gets 403 instead of a form to sign in."""
        django_view = super().admin_view(view, cacheable)

        @wraps(django_view)
        def admin_only_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.user.is_authenticated:
                require_admin(request.user)
            return django_view(request, *args, **kwargs)

        return csp_update(POLICY)(admin_only_view)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to the site's own sign-in, which asks for the second factor and counts wrong passwords."""
        if request.user.is_authenticated:
            require_admin(request.user)
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"))

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return redirect("accounts:password")


class ReadOnly:
    """Mixin for the admin of a model that can only be viewed; changes go through the services."""

    def is_allowed(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = is_allowed


class CountsVersions:
    """Mixin for the admin of a model with `versions`: a column `version_count`, read by the list's own query."""

    @admin.display(description=_("versions"), ordering="count")
    def version_count(self, obj: Any) -> int:
        return int(obj.count)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]  # of the admin that this is mixed into
        return queryset.annotate(count=Count("versions"))
