"""Scopes of personal tokens, which every operation of the API checks."""

from typing import Any

import pytest
from django.urls import get_resolver
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.views import APIView

from accounts.authentication import HasScope
from accounts.services import make_token

from .access_table import API, BODIES, answer, filled, lines, views

OPEN = {
    "api/login",
    "api/login/refresh",
    "api/logout",
    "api/schema",
    "api/docs",
}  # to anybody, with and without a token
PREDICTING = {"api/predict", "v1/chat/completions", "v1/completions"}


def asks_scopes(view: Any) -> bool:
    """Return whether each method of an API view itself requires HasScope, as set up for a request."""
    view_class = getattr(view, "cls", getattr(view, "view_class", None))
    if not (isinstance(view_class, type) and issubclass(view_class, APIView)):
        return False
    for method in set(view_class.http_method_names) - {"options"}:
        if hasattr(view_class, method):
            instance = view_class(**getattr(view, "initkwargs", {}))
            instance.setup(APIRequestFactory().generic(method, "/"))
            if not any(isinstance(permission, HasScope) for permission in instance.get_permissions()):
                return False
    return True


def test_every_view_of_the_api_checks_the_scopes_of_a_token() -> None:
    api = {
        address: view for address, view in views(get_resolver()) if address.startswith("api/") or hasattr(view, "cls")
    }
    assert len(api) > 30 and {address for address, view in api.items() if not asks_scopes(view)} == OPEN


@pytest.mark.medium
@pytest.mark.parametrize("scope", ["read", "write", "predict", "admin"])
def test_token_opens_what_its_scope_names_and_nothing_else(
    people: dict[str, Any], arguments: dict[str, str], scope: str
) -> None:
    client = APIClient()
    _token, secret = make_token(user=people["admin"], name="one scope", scopes=[scope], days=1)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    for method, address, _codes in lines(API):
        plain = address.partition("?")[0]
        wanted = "predict" if plain in PREDICTING else "read" if method == "GET" else "write"
        if plain not in OPEN and wanted != scope:
            body = BODIES.get(plain) if method != "GET" else None
            assert answer(client, method, filled(address, arguments), body) == 403, (method, address)
