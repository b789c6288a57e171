"""Rights end with the role: what somebody made while they were an administrator, and what they have open."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections
from django.test import Client
from rest_framework.test import APIClient

from accounts import services
from accounts.models import Invitation, Role, User
from audit.models import Entry
from testing.people import make_user

PASSWORD, NEW = "correct-horse-9", "battery-staple-10"
RESET = r"/password/new/[\w-]+/[\w-]+/"


@pytest.fixture
def root(db: None) -> User:
    """The first administrator."""
    user = User.objects.create_superuser("root", "root@example.org", PASSWORD)
    user.set_role(Role.ADMIN)
    return user


def signed_in(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def invited(by: User, role: str) -> str:
    page = signed_in(by).post("/people/", {"note": "x", "role": role}).content.decode()
    return re.search(r"/join/ls_inv_\w+/", page)[0]  # type: ignore[index]


def reset_for(person: User, by: User) -> str:
    page = signed_in(by).post(f"/people/{person.username}/", {"do": "link"}).content.decode()
    return re.search(RESET, page)[0]  # type: ignore[index]


def opens(link: str) -> bool:
    """Whether the link gets as far as a form for a new password."""
    return "new_password1" in Client().get(link, follow=True).content.decode()


def joins(link: str, name: str = "nina") -> bool:
    Client().post(link, {"username": name, "password": NEW})
    return User.objects.filter(username=name).exists()


def admin_form(user: User, **changes: Any) -> dict[str, Any]:
    return {"username": user.username, "email": user.email, "role": user.role, "is_active": "on", **changes}


def change(user: User, by: User, **changes: Any) -> Any:
    return signed_in(by).post(f"/admin/accounts/user/{user.pk}/change/", admin_form(user, **changes))


CHANGES: dict[str, Callable[[User, User], Any]] = {
    "the admin's form": lambda user, root: change(user, root, role="viewer"),
    "the admin's form, disabled": lambda user, root: change(user, root, is_active=""),
    "the page, closed": lambda user, root: signed_in(root).post(f"/people/{user.username}/", {"do": "close"}),
    "the service": lambda user, root: services.change_role(user, Role.MEMBER),
    "out of the group": lambda user, root: user.groups.remove(Group.objects.get(name="admin")),
    "the group's own list": lambda user, root: Group.objects.get(name="admin").user_set.remove(user),
    "the group's list emptied": lambda user, root: Group.objects.get(name="admin").user_set.clear(),
    "groups set anew": lambda user, root: user.groups.set([]),
    "the group is deleted": lambda user, root: Group.objects.get(name="admin").delete(),
}


@pytest.mark.medium
@pytest.mark.parametrize("change", CHANGES)
def test_invitations_and_links_end_when_their_maker_is_demoted(root: User, member: User, change: str) -> None:
    maker = make_user("adm2", "admin")
    links = [invited(maker, "admin"), invited(maker, "viewer")]
    reset = reset_for(member, by=maker)
    assert opens(reset)
    CHANGES[change](maker, root)
    assert not Invitation.objects.exists() and not opens(reset)
    again = User.objects.get(pk=maker.pk)
    again.is_active = True
    again.save()
    again.set_role(Role.ADMIN)  # what has ended does not come back with the role
    assert not opens(reset) and not any(joins(link) for link in links)
    assert Entry.objects.filter(action="invitation.end").count() == 2


def test_former_superuser_loses_them_too(root: User, member: User) -> None:
    other = User.objects.create_superuser("second", None, PASSWORD)
    invited(other, "admin")
    reset = reset_for(member, by=other)
    other.is_superuser = False
    other.save()
    assert not Invitation.objects.exists() and not opens(reset)


def test_invitation_gives_nothing_that_its_maker_could_not_give_today(root: User) -> None:
    """A change that no signal tells of, such as one in SQL."""
    maker = make_user("adm2", "admin")
    link = invited(maker, "viewer")
    User.groups.through.objects.filter(user=maker).delete()
    assert Client().get(link).status_code == 404 and not joins(link)


@pytest.mark.medium
def test_other_changes_of_an_administrator_keep_the_invitations(root: User, member: User) -> None:
    maker = make_user("adm2", "admin")
    link, reset = invited(maker, "viewer"), reset_for(member, by=maker)
    team = Group.objects.create(name="team")
    assert change(maker, root, first_name="Ada", groups=[team.pk]).status_code == 302
    maker.refresh_from_db()
    assert maker.first_name == "Ada" and team in maker.groups.all() and User.objects.get(pk=maker.pk).is_admin
    Client().login(username="adm2", password=PASSWORD)
    assert opens(reset) and joins(link)


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_link_ends_when_the_role_of_its_person_changes(root: User, admin: User, member: User, role: str) -> None:
    """A member's link, made by any administrator, must not open an administrator's account."""
    reset, mailed = reset_for(member, by=admin), services.reset_path(member)
    assert opens(reset) and opens(mailed)
    services.change_role(member, Role(role))
    assert not opens(reset) and not opens(mailed)


@pytest.mark.medium
def test_open_sessions_have_the_new_role_with_the_next_request(root: User) -> None:
    person = make_user("adm2", "admin")
    browser = signed_in(person)
    token = services.make_token(user=person, name="x", scopes=["read", "write", "admin"], days=1)[1]
    access = APIClient().post("/api/login", {"username": "adm2", "password": PASSWORD}, format="json").json()["access"]

    def statuses() -> list[int]:
        pages = [browser.get(path).status_code for path in ("/people/", "/admin/", "/admin/accounts/user/", "/audit/")]
        api_answers = [
            APIClient().get("/api/audit/logs", headers={"Authorization": f"Bearer {secret}"}).status_code
            for secret in (token, access)
        ]
        return pages + api_answers

    assert statuses() == [200] * 6
    User.objects.get(pk=person.pk).groups.clear()
    assert statuses() == [403] * 6
    assert not User.objects.get(pk=person.pk).is_staff and browser.get("/account/").status_code == 200


@pytest.mark.medium
@pytest.mark.parametrize("victim", ["root", "adm3"])
def test_administrator_cannot_take_over_another_administrator(root: User, member: User, victim: str) -> None:
    attacker, person = make_user("adm2", "admin"), root if victim == "root" else make_user("adm3", "admin")
    browser = signed_in(attacker)
    refused = browser.post(f"/people/{victim}/", {"do": "link"})
    assert refused.status_code == 403 and not re.search(RESET, refused.content.decode())
    assert "Only the first administrator" in refused.content.decode()
    assert browser.post(f"/people/{victim}/", {"do": "second_factor"}).status_code == 403
    passwords = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    assert browser.post(f"/admin/accounts/user/{person.pk}/password/", passwords).status_code == 403
    change(person, attacker, email="attacker@example.org", username="mine")
    person.refresh_from_db()
    assert (person.email, person.username) == (f"{victim}@example.org", victim) and person.check_password(PASSWORD)
    assert opens(reset_for(person, by=root)) and opens(reset_for(member, by=attacker))


def test_only_a_superuser_closes_or_demotes_one(root: User) -> None:
    attacker = make_user("adm2", "admin")
    assert signed_in(attacker).post("/people/root/", {"do": "close"}).status_code == 403
    change(root, attacker, role="viewer", is_active="")
    superuser = User.objects.get(pk=root.pk)
    assert superuser.is_active and superuser.is_superuser and superuser.role == Role.ADMIN


def test_two_who_open_one_invitation_at_the_same_moment_make_one_account(transactional_db: None) -> None:
    link = f"/join/{services.invite(user=make_user('admin', 'admin'), role=Role.VIEWER)[1]}/"

    def send(name: str) -> int:
        try:
            return int(Client().post(link, {"username": name, "password": NEW}).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(send, ["nina", "nora"])) == [302, 404]
    assert User.objects.count() == 2
