"""Who asks."""

from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from .models import User


def person(request: Request) -> User:
    """The signed-in person of a view that demands sign-in, as REST_FRAMEWORK's default permission does."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user
