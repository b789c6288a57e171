"""Sign in and out for programs: JSON Web Tokens."""

from typing import Any, cast

from django.contrib.auth.signals import user_logged_in, user_logged_out
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

from .errors import Invalid
from .models import User


class LoginSerializer(TokenObtainPairSerializer):
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        tokens: dict[str, Any] = super().validate(attrs)
        user = cast(User, self.user)
        user_logged_in.send(User, request=self.context["request"], user=user)
        return {**tokens, "user_id": user.pk, "role": user.role}


class RefreshSerializer(TokenRefreshSerializer):
    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
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


class LogoutRequest(serializers.Serializer[Any]):
    refresh = serializers.CharField()


class Refresh(TokenRefreshView):
    serializer_class = RefreshSerializer


class Logout(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []

    @extend_schema(request=LogoutRequest, responses={204: None})
    def post(self, request: Request) -> Response:
        """Ends a refresh token for good."""
        asked = LogoutRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            token = RefreshToken(asked.validated_data["refresh"])
            token.blacklist()
        except TokenError as error:
            raise Invalid(str(error), field="refresh") from None
        user = User.objects.filter(pk=token.get("user_id")).first()
        user_logged_out.send(User, request=request, user=user)
        return Response(status=204)
