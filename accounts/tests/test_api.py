"""Signing in, going on and signing out as a program does."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User

PASSWORD = "correct-horse-9"


def post(path: str, body: Any) -> Any:
    return APIClient().post(path, body, format="json")


@pytest.fixture
def tokens(member: User) -> dict[str, Any]:
    return dict(post("/api/login", {"username": "member", "password": PASSWORD}).json())


@pytest.mark.medium
def test_login_returns_tokens_user_and_role(member: User, tokens: dict[str, Any]) -> None:
    assert tokens.keys() == {"access", "refresh", "user_id", "role"}
    assert (tokens["user_id"], tokens["role"]) == (member.pk, "member")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    assert client.get("/api/experiments/mine").status_code == 200


def test_refused_login_is_a_problem(member: User) -> None:
    answer = post("/api/login", {"username": "member", "password": "guessed-it-11"})
    assert answer.status_code == 401 and answer["Content-Type"] == "application/problem+json"


def test_refresh_token_works_once(tokens: dict[str, Any]) -> None:
    again = post("/api/login/refresh", {"refresh": tokens["refresh"]})
    assert again.status_code == 200 and again.json()["refresh"] != tokens["refresh"]
    assert post("/api/login/refresh", {"refresh": tokens["refresh"]}).status_code == 401
    assert post("/api/login/refresh", {"refresh": again.json()["refresh"]}).status_code == 200


def test_refresh_token_is_no_access_token(tokens: dict[str, Any]) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['refresh']}")
    assert client.get("/api/experiments/mine").status_code == 401


def test_logout_ends_the_refresh_token(tokens: dict[str, Any]) -> None:
    assert post("/api/logout", {"refresh": tokens["refresh"]}).status_code == 204
    assert post("/api/login/refresh", {"refresh": tokens["refresh"]}).status_code == 401
    assert post("/api/logout", {"refresh": tokens["refresh"]}).status_code == 401


@pytest.mark.parametrize("body", [{}, {"refresh": ""}, {"refresh": "no.such.token"}, [1, 2], {"refresh": {"a": 1}}])
@pytest.mark.parametrize("path", ["/api/logout", "/api/login/refresh", "/api/login"])
def test_invalid_body_is_a_problem(db: None, path: str, body: Any) -> None:
    answer = post(path, body)
    assert answer.status_code in (400, 401) and answer["Content-Type"] == "application/problem+json"


def test_token_of_a_deleted_account_is_refused(member: User, tokens: dict[str, Any]) -> None:
    member.delete()
    assert post("/api/login/refresh", {"refresh": tokens["refresh"]}).status_code == 401
