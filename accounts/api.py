"""Sign in and out for programs: JSON Web Tokens."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out
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

from .errors import Invalid
from .models import User


class LoginSerializer(TokenObtainPairSerializer):
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        tokens: dict[str, Any] = super().validate(attrs)
        user_logged_in.send(type(self.user), request=self.context["request"], user=self.user)
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
        user = User.objects.filter(pk=token.get("user_id")).first()
        user_logged_out.send(User, request=request, user=user)
        return Response(status=204)
