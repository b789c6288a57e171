"""Sign in and out for programs: JSON Web Tokens."""

from typing import Any

from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.views import TokenObtainPairView

from audit.services import record

from .errors import Invalid


class LoginSerializer(TokenObtainPairSerializer):
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        tokens: dict[str, Any] = super().validate(attrs)
        record("user.login", user=self.user, through="api")
        return {**tokens, "user_id": self.user.pk, "role": self.user.role}


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

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().post(request, *args, **kwargs)
        except Exception:
            record("user.login", result="refused", username=str(request.data.get("username", ""))[:150], through="api")
            raise


class Logout(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []

    @extend_schema(
        request=inline_serializer("LogoutRequest", {"refresh": serializers.CharField()}), responses={204: None}
    )
    def post(self, request: Request) -> Response:
        """Ends a refresh token for good."""
        try:
            token = RefreshToken(request.data.get("refresh", ""))
            token.blacklist()
        except TokenError as error:
            raise Invalid(str(error), field="refresh") from None
        record("user.logout", through="api", user_id=token.get("user_id"))
        return Response(status=204)
