"""Authentication of programs with personal API tokens, in addition to the JSON Web Tokens of SimpleJWT."""

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request

from web.requests import client_address

from . import secrets
from .models import Role, Scope, Token, User

if TYPE_CHECKING:  # both load DRF's settings, which name the classes below
    from drf_spectacular.openapi import AutoSchema
    from rest_framework.views import APIView

USED_EVERY = timedelta(minutes=1)  # precision of `last_used_at`, so that not every read request writes


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer ls_pat_…`."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        """Return the token's user and the token; None for other ways to sign in, AuthenticationFailed for a bad token."""
        scheme, _space, secret = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith("ls_"):
            return None
        token = None
        if secrets.is_well_formed(secret, "pat"):
            token = Token.objects.select_related("user").filter(hash=secrets.digest(secret)).first()
        if token is None or not token.is_living:
            raise AuthenticationFailed(_("Invalid, revoked or expired token."))
        user = token.user
        if not user.is_active or not constant_time_compare(token.stamp, user.get_session_auth_hash()):
            raise AuthenticationFailed(_("This token was revoked: the account was closed or its password changed."))
        if Scope.ADMIN not in token.scopes and user.role == Role.ADMIN:
            user.act_as(Role.MEMBER)

        now = timezone.now()
        if token.last_used_at is None or token.last_used_at < now - USED_EVERY:
            # Two requests may come at once: only the first of them writes.
            not_noted = Q(last_used_at=None) | Q(last_used_at__lt=now - USED_EVERY)
            Token.objects.filter(not_noted, pk=token.pk).update(last_used_at=now, last_address=client_address(request))
        return user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class HasScope(IsAuthenticated):
    """Require a signed-in user; a personal token must have the scope that the view or the request's method needs."""

    message = _("This token's scopes do not allow this. Create a token with the scope that is needed.")

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Return whether the request may go on. `view.scope` replaces the default: read for GET, write for the rest."""
        if not super().has_permission(request, view):
            return False
        if not isinstance(request.auth, Token):  # a session or a JSON Web Token has all rights of the person
            return True
        default = Scope.READ if request.method in SAFE_METHODS else Scope.WRITE
        required = getattr(view, "scope", default)
        return required in request.auth.scopes


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = TokenAuthentication
    name = "personalToken"

    def get_security_definition(self, auto_schema: "AutoSchema") -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "ls_pat_…"}
