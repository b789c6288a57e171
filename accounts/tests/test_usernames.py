"""Names of people: nobody gets one that a reader takes for somebody else's, and old odd ones go on to work."""

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from rest_framework.test import APIClient

from accounts import services, sharing, usernames
from accounts.models import Role, User
from testing.belongings import belongings
from testing.people import make_user

PASSWORD = "correct-horse-9"
CYRILLIC = "r\u043e\u043et"  # rооt
DECEPTIVE = [
    "Root", "ROOT", CYRILLIC, "\uff52\uff4f\uff4f\uff54", "r\u1d0fot", "everyone", "Everyone", "\u0435veryone",
    "..", ".", "-x", "_", "@", "+", "me", "mine", "new", "system", "anonymous", "ad\u0430", "\u0441\u043e\u0441\u0430",
    "a b", "a/b", "a?b", "a%2fb", "a\u200db", "",
]  # fmt: skip
HONEST = [
    "ada",
    "Ada.Lovelace",
    "bob+1",
    "王小明",
    "王bob",
    "山田ロボ",
    "김철수kim",
    "Анна",
    "o-brien",
    "jörg",
    "42",
    "root2",
]


@pytest.fixture
def root(db: None) -> User:
    return make_user("root", "admin")


def join(by: User, name: str) -> int:
    secret = services.invite(user=by, role=Role.VIEWER)[1]
    form = {"username": name, "password": PASSWORD}
    return Client().post(f"/join/{secret}/", form).status_code


def old(name: str) -> User:
    """An account of before there were rules."""
    user = make_user("placeholder", "member")
    User.objects.filter(pk=user.pk).update(username=name, username_key=None)
    return User.objects.get(pk=user.pk)


@pytest.mark.parametrize("name", DECEPTIVE)
def test_deceptive_name_is_refused_wherever_it_is_entered(root: User, name: str, client: Any) -> None:
    assert join(root, name) == 400
    client.force_login(root)
    form = {"username": name, "password1": "Quite-long-7", "password2": "Quite-long-7", "role": "viewer"}
    assert client.post("/admin/accounts/user/add/", {**form, "usable_password": "true"}).status_code == 200
    with pytest.raises(CommandError):
        call_command("createsuperuser", interactive=False, username=name, email="x@example.org")
    with pytest.raises((ValidationError, ValueError, IntegrityError)), transaction.atomic():
        User.objects.create_user(name)
    assert User.objects.count() == 1


@pytest.mark.parametrize("name", HONEST)
def test_ordinary_name_of_any_script_is_accepted(root: User, name: str) -> None:
    assert join(root, name) == 302 and User.objects.get(username=name).is_active


@pytest.mark.parametrize("name", ["support", "Administrator", "admin"])
def test_official_name_needs_an_administrator_or_the_command_line(root: User, name: str) -> None:
    assert join(root, name) == 400
    assert make_user(name, "admin").is_admin


def test_renaming_in_the_admin_is_checked_too(root: User, member: User, client: Any) -> None:
    client.force_login(root)
    form = {"email": "", "role": "member", "is_active": "on"}
    assert client.post(f"/admin/accounts/user/{member.pk}/change/", {**form, "username": CYRILLIC}).status_code == 200
    assert client.post(f"/admin/accounts/user/{member.pk}/change/", {**form, "username": "Member"}).status_code == 302
    assert User.objects.get(pk=member.pk).username == "Member"


def test_the_database_refuses_what_two_requests_checked_at_once(root: User) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("ROOT")


def test_sign_in_ignores_case_while_the_name_is_unambiguous(root: User) -> None:
    assert APIClient().post("/api/login", {"username": "ROOT", "password": PASSWORD}, format="json").status_code == 200
    assert Client().login(username="Root", password=PASSWORD)
    double = old("Root")
    assert Client().login(username="Root", password=PASSWORD) and Client().login(username="root", password=PASSWORD)
    assert not Client().login(username="ROOT", password=PASSWORD)
    signed_in = APIClient().post("/api/login", {"username": "Root", "password": PASSWORD}, format="json").json()
    assert signed_in["user_id"] == double.pk


@pytest.mark.medium
def test_spellings_of_one_name_share_one_count_of_wrong_passwords(root: User, settings: Any) -> None:
    spellings = ["root", "Root", "ROOT", "rOOt", CYRILLIC]
    for n in range(settings.AXES_FAILURE_LIMIT):
        Client().post("/login/", {"username": spellings[n % 5], "password": f"guess-{n}"})
    assert Client().post("/login/", {"username": "root", "password": PASSWORD}).status_code == 429


@pytest.mark.medium
@pytest.mark.parametrize("name", ["..", "everyone", "Root", CYRILLIC])
def test_account_with_an_old_name_against_the_rules_still_works(root: User, name: str, client: Any) -> None:
    user = old(name)
    browser = Client()
    assert browser.post("/login/", {"username": name, "password": PASSWORD})["Location"] == "/"
    assert browser.get("/").status_code == 200
    user.refresh_from_db()
    user.save()
    client.force_login(root)
    form = {"username": name, "email": "new@example.org", "role": "member", "is_active": "on"}
    assert client.post(f"/admin/accounts/user/{user.pk}/change/", form).status_code == 302
    assert user.page in client.get("/people/").content.decode() and client.get(user.page).status_code == 200
    assert client.post(user.page, {"do": "close"})["Location"] == user.page
    assert not User.objects.get(username=name).is_active


def test_page_of_a_name_that_no_url_can_contain_uses_the_number(root: User) -> None:
    assert old("..").page.startswith("/people/id/") and root.page == "/people/root/"


def test_name_like_those_of_two_old_accounts_is_refused(root: User) -> None:
    old("Root")
    User.objects.filter(pk=root.pk).update(username="chief", username_key="chief")
    assert join(User.objects.get(pk=root.pk), "rOOt") == 400


def test_page_shares_with_a_person_called_everyone_and_not_with_all(member: User) -> None:
    person, private = old("everyone"), belongings(member, "private").dataset
    assert sharing.find_recipients("person:everyone") == [person] and len(sharing.find_recipients("everyone")) == 3
    browser = Client()
    browser.force_login(member)
    assert 'value="person:everyone"' in browser.get(f"{private.get_absolute_url()}?tab=access").content.decode()


def test_migration_gives_the_older_of_two_like_names_the_key(root: User) -> None:
    older, younger = root, old("ROOT")
    User.objects.update(username_key=None)
    import_module("accounts.migrations.0004_trust").keep_keys(apps, None)
    keys = dict(User.objects.values_list("pk", "username_key"))
    assert keys == {older.pk: "root", younger.pk: None}


def test_name_from_single_sign_on_looks_like_no_other(root: User, rf: Any) -> None:
    from accounts.adapters import AccountAdapter

    old("\u0430da")  # аda, with a Cyrillic а
    adapter = AccountAdapter()
    for name in ("Root", "everyone", "support", "ada"):
        with pytest.raises(ValidationError):
            adapter.clean_username(name)
    made = adapter.generate_unique_username(["ada"])
    assert made != "ada" and not usernames.find_lookalikes(User.objects.all(), made)
