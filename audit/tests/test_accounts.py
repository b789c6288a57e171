"""What people do with their accounts is in the log, and their secrets are not."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from audit.models import Entry

OLD, NEW = "correct-horse-9", "battery-staple-10"


def logged() -> list[tuple[str, str, str]]:
    return list(Entry.objects.order_by("pk").values_list("action", "username", "result"))


def test_api_session_is_logged(member: User) -> None:
    client = APIClient()
    assert client.post("/api/login", {"username": "member", "password": "guessed-it"}, format="json").status_code == 401
    tokens = client.post("/api/login", {"username": "member", "password": OLD}, format="json").json()
    client.post("/api/logout", {"refresh": tokens["refresh"]}, format="json")
    assert logged() == [
        ("user.login", "member", "refused"),
        ("user.login", "member", "ok"),
        ("user.logout", "member", "ok"),
    ]
    assert not any(
        s in str(e) for e in Entry.objects.values() for s in ("guessed-it", OLD, *tokens["refresh"].split("."))
    )


def test_page_session_is_logged(client: Any, member: User) -> None:
    client.post("/login/", {"username": "nobody-here", "password": "guessed-it"})
    client.post("/login/", {"username": "member", "password": OLD})
    client.post("/logout/")
    assert [action for action, _user, _result in logged()] == ["user.login", "user.login", "user.logout"]
    assert logged()[0] == ("user.login", "nobody-here", "refused")


@pytest.mark.parametrize("old", [OLD, "not-the-old-one"])
def test_new_password_is_logged_once_it_holds(client: Any, member: User, old: str) -> None:
    client.force_login(member)
    client.post("/account/password/", {"old_password": old, "new_password1": NEW, "new_password2": NEW})
    entries = Entry.objects.filter(action="user.password_change", username="member", object_id="member")
    assert entries.count() == (old == OLD)
    assert not any(OLD in str(e) or NEW in str(e) for e in Entry.objects.values())
