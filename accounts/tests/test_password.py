"""A new password ends whatever the old one had opened."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import Role, User

OLD, NEW = "correct-horse-9", "battery-staple-10"
FORM = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}


def signed_in(username: str) -> tuple[Client, dict[str, Any]]:
    browser = Client()
    browser.login(username=username, password=OLD)
    return browser, APIClient().post("/api/login", {"username": username, "password": OLD}, format="json").json()


def me(access: str) -> int:
    return int(APIClient().get("/api/datasets", headers={"Authorization": f"Bearer {access}"}).status_code)


def refresh(token: str) -> Any:
    return APIClient().post("/api/login/refresh", {"refresh": token}, format="json")


def test_the_roles_are_there_from_the_start(db: None) -> None:
    assert set(Group.objects.values_list("name", flat=True)) >= set(Role.values)


@pytest.mark.medium
def test_sign_in_is_confirmed_in_the_language_of_the_reader(member: User) -> None:
    member.set_password(OLD)
    member.save()
    sent = {"username": "member", "password": OLD}
    page = Client().post("/login/", sent, follow=True, headers={"Accept-Language": "zh-Hant"})
    assert "已以 member 的身分登入。" in page.content.decode()


def test_change_keeps_this_session_and_ends_the_others(member: User) -> None:
    (here, _tokens), (there, tokens) = signed_in("member"), signed_in("member")
    assert me(tokens["access"]) == 200
    assert here.post("/account/password/", FORM)["Location"] == "/"
    assert here.get("/").status_code == 200
    assert there.get("/").status_code == 302
    assert me(tokens["access"]) == 401
    assert refresh(tokens["refresh"]).status_code == 401
    member.refresh_from_db()
    assert member.check_password(NEW)


@pytest.mark.parametrize(
    "wrong",
    [{"old_password": "guessed-it-11"}, {"new_password2": "another-one-12"}, {"new_password1": "short"}],
)
def test_refused_change_changes_nothing(client: Any, member: User, wrong: dict[str, str]) -> None:
    client.force_login(member)
    answer = client.post("/account/password/", FORM | wrong)
    assert answer.status_code == 200 and "field-error" in answer.content.decode()
    member.refresh_from_db()
    assert member.check_password(OLD)


def test_disabled_account_is_out_with_the_next_request(member: User) -> None:
    browser, tokens = signed_in("member")
    User.objects.filter(pk=member.pk).update(is_active=False)
    assert browser.get("/").status_code == 302
    assert me(tokens["access"]) == 401
    assert refresh(tokens["refresh"]).status_code == 401
    assert APIClient().post("/api/login", {"username": "member", "password": OLD}, format="json").status_code == 401
