"""API: signing in and out with JSON Web Tokens, and sharing."""

from typing import Any, cast

from allauth.mfa.utils import is_mfa_enabled
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.exceptions import InvalidToken, TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from accounts.http import signed_in_user
from web.errors import LorasiteError
from web.requests import StrictCharField
from web.throttles import throttle_classes_for

from . import sharing
from .models import User
from .second_factor import code_fits


class SecondFactorNeededError(LorasiteError):
    code = "second_factor_needed"
    status = 401
    message = _("This account has a second factor. Send its code, or a recovery code, as `code`.")


class LoginSerializer(TokenObtainPairSerializer):
    code = StrictCharField(
        required=False, write_only=True, help_text="Code of the second factor, if the account has one."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Check password, lock-out and second factor; return the tokens with the person's key and role."""
        code = attrs.pop("code", "")
        tokens: dict[str, Any] = super().validate(attrs)
        user = cast(User, self.user)
        if is_mfa_enabled(user) and not code_fits(user, code):
            if code:  # a wrong code counts as a failed sign-in; asking for one does not
                user_login_failed.send(User, credentials={"username": user.username}, request=self.context["request"])
            raise SecondFactorNeededError
        user_logged_in.send(User, request=self.context["request"], user=user)
        return {**tokens, "user_id": user.pk, "role": user.role}


class RefreshSerializer(TokenRefreshSerializer):
    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Return new tokens; raise InvalidToken if the account was deleted.

        SimpleJWT does not catch that, which would be a server error.
        """
        try:
            return super().validate(attrs)
        except User.DoesNotExist:
            raise InvalidToken from None


LoginAnswer = inline_serializer(
    "LoginAnswer",
    {
        "access": serializers.CharField(),
        "refresh": serializers.CharField(),
        "user_id": serializers.IntegerField(),
        "role": serializers.CharField(),
    },
)


@extend_schema(responses=LoginAnswer)
class Login(TokenObtainPairView):
    serializer_class = LoginSerializer
    throttle_classes = throttle_classes_for("login")  # type: ignore[assignment]  # DRF calls each


class EndSerializer(serializers.Serializer[Any]):
    refresh = StrictCharField()


class Refresh(TokenRefreshView):
    serializer_class = RefreshSerializer


class Logout(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []

    def get_authenticate_header(self, request: Request) -> str:
        # Without authentication classes DRF knows no scheme, and would answer a bad token with 403 instead of 401.
        return 'Bearer realm="api"'

    @extend_schema(request=EndSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Revoke a refresh token."""
        serializer = EndSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            token = RefreshToken(serializer.validated_data["refresh"])
            token.blacklist()
        except TokenError as error:
            raise InvalidToken(str(error)) from None
        user = User.objects.filter(pk=token.get("user_id")).first()
        user_logged_out.send(User, request=request, user=user)
        return Response(status=204)


class AccessSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["person", "group"])
    name = serializers.CharField(
        help_text="Name of the person or group; a description for the entry of all administrators."
    )
    access = serializers.ChoiceField(["view", "manage", "owner", "all"], source="level")
    why = serializers.CharField()


class GiveSerializer(serializers.Serializer[Any]):
    to = StrictCharField(max_length=150, help_text="USERNAME, person:USERNAME, group:NAME or everyone.")
    access = serializers.ChoiceField(
        list(sharing.LEVELS), help_text="owner gives the object away; none stops sharing it."
    )


class Sharing(APIView):
    """Who can see an object; `kind` is dataset, experiment or model. A run is shared with its experiment."""

    @extend_schema(operation_id="sharing_list", responses=AccessSerializer(many=True))
    def get(self, request: Request, kind: str, name: str) -> Response:
        """Who can see it, and why."""
        obj = sharing.shared_object(signed_in_user(request), kind, name)
        return Response(AccessSerializer(sharing.access_list(obj), many=True).data)

    @extend_schema(operation_id="sharing_give", request=GiveSerializer, responses={200: AccessSerializer(many=True)})
    def post(self, request: Request, kind: str, name: str) -> Response:
        """Set what a person or a group may do with it; for its owner and admins."""
        obj = sharing.shared_object(signed_in_user(request), kind, name)
        serializer = GiveSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        level = serializer.validated_data["access"]
        for recipient in sharing.find_recipients(serializer.validated_data["to"]):
            sharing.set_access(user=signed_in_user(request), obj=obj, to=recipient, level=level)
        return Response(AccessSerializer(sharing.access_list(obj), many=True).data)
