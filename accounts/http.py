"""Requests of signed-in people."""

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from accounts.models import User


class SignedInRequest(HttpRequest):
    """The request of a view behind `login_required`: `user` is never anonymous."""

    user: User
    htmx: HtmxDetails


def signed_in_user(request: HttpRequest | Request) -> User:
    """Return the signed-in user of an API view or of the admin; raise NotAuthenticated if there is none."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user
