"""Coming in and coming back: invitations, links for new passwords, sessions."""

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from accounts import services
from accounts.models import Invitation, Role, User
from audit.models import Entry

NEW = "battery-staple-10"


def invited(client: Any, admin: User) -> str:
    client.force_login(admin)
    page = client.post("/people/", {"note": "Nina", "role": "member"}).content.decode()
    return re.search(r"/join/ls_inv_\w+/", page)[0]  # type: ignore[index]


def test_nobody_signs_up_without_an_invitation(client: Any, db: None) -> None:
    for path in ("/signup/", "/accounts/signup/", "/join/ls_inv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/"):
        assert client.get(path).status_code == 404


@pytest.mark.medium
def test_invitation_makes_one_account_with_its_role(client: Any, admin: User) -> None:
    link, browser = invited(client, admin), Client()
    secret = link.split("/")[2]
    assert secret not in str(list(Invitation.objects.values()))
    assert browser.post(link, {"username": "nina", "password": "nina"}).status_code == 400
    assert browser.post(link, {"username": "admin", "password": NEW}).status_code == 400
    assert browser.post(link, {"username": "nina", "password": NEW})["Location"] == "/"
    assert User.objects.get(username="nina").role == Role.MEMBER and browser.get("/").status_code == 200
    assert Client().get(link).status_code == 404
    assert list(Entry.objects.filter(action="user.join").values_list("object_id", flat=True)) == ["nina"]
    assert secret not in str(list(Entry.objects.values()))


def test_several_people_are_invited_at_once(client: Any, admin: User, member: User) -> None:
    client.force_login(admin)
    notes = "mei@example.org\n\n Tom \nMember@example.org\nmei@example.org"
    page = client.post("/people/", {"note": notes, "role": "viewer"}).content.decode()
    assert len(re.findall(r"/join/ls_inv_\w+/", page)) == 2 and "Member@example.org has an account already" in page
    invitations = Invitation.objects.order_by("note")
    assert [(each.note, each.role) for each in invitations] == [("Tom", "viewer"), ("mei@example.org", "viewer")]
    assert Entry.objects.filter(action="invitation.create").count() == 2


@pytest.mark.parametrize("notes", ["x\n" * 2 + "\n".join(map(str, range(50))), "ok\n" + "x" * 121])
def test_nobody_is_invited_where_a_line_can_not_be(client: Any, admin: User, notes: str) -> None:
    client.force_login(admin)
    answer = client.post("/people/", {"note": notes, "role": "viewer"})
    assert answer.status_code == 400 and not Invitation.objects.exists()
    assert answer.context["form"]["note"].errors and answer.context["form"]["note"].value() == notes


def test_invitation_can_be_withdrawn_and_expires(client: Any, admin: User) -> None:
    link = invited(client, admin)
    client.post(f"/people/invitations/{Invitation.objects.get().pk}/end/")
    assert Client().get(link).status_code == 404
    link = invited(client, admin)
    Invitation.objects.update(expires_at="2020-01-01T00:00Z")
    assert Client().get(link).status_code == 404


def test_admin_makes_a_link_that_sets_a_password_once(client: Any, admin: User, member: User) -> None:
    client.force_login(admin)
    page = client.post("/people/member/", {"do": "link"}).content.decode()
    link, browser = re.search(r"/password/new/[\w-]+/[\w-]+/", page)[0], Client()  # type: ignore[index]
    form = browser.get(link, follow=True).redirect_chain[0][0]
    assert browser.post(form, {"new_password1": NEW, "new_password2": NEW})["Location"] == "/login/"
    member.refresh_from_db()
    assert member.check_password(NEW)
    assert "already used" in Client().get(link, follow=True).content.decode()
    actions = list(Entry.objects.order_by("pk").values_list("action", "username"))
    assert ("user.reset_link", "admin") in actions and ("user.password_change", "") in actions


def test_forgotten_password_comes_by_mail(settings: Any, client: Any, member: User) -> None:
    answer = client.post("/password/forgot/", {"email": "member@example.org"}, follow=True)
    assert "link is on its way" in answer.content.decode()
    (sent,) = mail.outbox
    assert sent.to == ["member@example.org"] and services.reset_path(member).rpartition("/")[0][:18] in sent.body
    unknown = client.post("/password/forgot/", {"email": "nobody@example.org"}, follow=True)
    assert (
        "link is on its way" in unknown.content.decode() and len(mail.outbox) == 1
    )  # the answer does not reveal who has an account


def signed_in() -> Client:
    browser = Client(HTTP_USER_AGENT="Firefox of the office")
    browser.post("/login/", {"username": "member", "password": "correct-horse-9"})
    return browser


@pytest.mark.medium
def test_sessions_are_listed_and_ended_one_by_one_and_all(member: User) -> None:
    here, there, elsewhere = signed_in(), signed_in(), signed_in()
    page = here.get("/account/sessions/").content.decode()
    assert page.count("Firefox of the office") == 3 and page.count("this browser") == 1
    others = re.findall(r'name="session" value="(\d+)"', page)
    here.post("/account/sessions/", {"session": others[0]})
    assert sorted([there.get("/").status_code, elsewhere.get("/").status_code]) == [200, 302]
    here.post("/account/sessions/", {"session": "others"})
    assert (there.get("/").status_code, elsewhere.get("/").status_code) == (302, 302)
    assert here.get("/").status_code == 200
    assert Entry.objects.filter(action="session.end").count() == 2


def test_nobody_ends_somebody_elses_session(member: User, stranger: User, client: Any) -> None:
    theirs = signed_in()
    client.post("/login/", {"username": "stranger", "password": "correct-horse-9"})
    for session in ("1", "2", "others"):
        client.post("/account/sessions/", {"session": session})
    assert theirs.get("/").status_code == 200


@pytest.mark.parametrize("do", ["link", "close", "limits"])
def test_only_admins_do_this(client: Any, member: User, stranger: User, do: str) -> None:
    client.force_login(member)
    assert client.post("/people/stranger/", {"do": do}).status_code == 403
    assert User.objects.get(pk=stranger.pk).is_active


def test_session_shows_the_browser_and_its_full_text_as_title(member: User) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
    browser = Client(HTTP_USER_AGENT=agent)
    browser.post("/login/", {"username": "member", "password": "correct-horse-9"})
    page = browser.get("/account/sessions/").content.decode()
    assert f'title="{agent}">Firefox on Linux<' in page
