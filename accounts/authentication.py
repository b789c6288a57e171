"""Who a program is: a personal API token, beside the JSON Web Tokens of SimpleJWT."""

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request

from web.requests import address_of

from . import secrets
from .models import Role, Scope, Token, User

USED_EVERY = timedelta(minutes=1)  # `last used` is that exact, so that a reader does not write with each request


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer ls_pat_…`."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        word, _space, secret = get_authorization_header(request).decode("latin-1").partition(" ")
        if word.lower() != "bearer" or not secret.startswith("ls_"):
            return None
        token = self._token(secret)
        user = token.user
        if not user.is_active or not constant_time_compare(token.stamp, user.get_session_auth_hash()):
            raise AuthenticationFailed(_("This token has ended with the account or its password."))
        if Scope.ADMIN not in token.scopes and user.role == Role.ADMIN:
            user.__dict__["role"] = Role.MEMBER  # for this request: the whole rule book follows
        self._used(token, request)
        return user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'

    def _token(self, secret: str) -> Token:
        known = secrets.is_whole(secret, "pat")
        found = Token.objects.select_related("user").filter(hash=secrets.digest(secret)).first() if known else None
        if found is None or not found.is_living:
            raise AuthenticationFailed(_("This token is none of ours, was ended, or has run out."))
        return found

    def _used(self, token: Token, request: Request) -> None:
        now = timezone.now()
        long_ago = Q(last_used_at=None) | Q(last_used_at__lt=now - USED_EVERY)
        if token.last_used_at is None or token.last_used_at < now - USED_EVERY:
            Token.objects.filter(long_ago, pk=token.pk).update(last_used_at=now, last_address=address_of(request))


class HasScope(IsAuthenticated):
    """Signed in; with a personal token, only for what its scopes name. A view may say `scope`, else its method does."""

    message = _("The scopes of this token do not allow it. Make one with the scope that is needed.")

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        wanted = getattr(view, "scope", Scope.READ if request.method in SAFE_METHODS else Scope.WRITE)
        return not isinstance(request.auth, Token) or wanted in request.auth.scopes


class TokenScheme(OpenApiAuthenticationExtension):
    target_class, name = TokenAuthentication, "personalToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "ls_pat_…"}
