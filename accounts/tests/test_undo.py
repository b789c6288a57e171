"""Shares and invitations that were ended come back with one click, for who has ended them."""

import re
from typing import Any

import pytest
from django.core import signing
from django.test import Client

from accounts import services
from accounts.models import Invitation, Token, User
from accounts.permissions import grant_access
from accounts.sharing import access_list
from audit.models import Entry
from experiments.models import Alias
from testing.belongings import belongings
from web import undo

pytestmark = pytest.mark.django_db


def offered(page: Any) -> str:
    """Return the token of the button that a page offers."""
    return re.search(r'name="token" value="([^"]+)"', page.content.decode())[1]  # type: ignore[index]


def levels(obj: Any) -> dict[str, str]:
    return {access.name: access.level for access in access_list(obj) if access.is_share}


def test_share_that_was_ended_comes_back(client: Any, member: User, viewer: User) -> None:
    dataset = belongings(member).dataset
    grant_access(dataset, to=viewer, manage=True)
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "none"}, follow=True)
    assert levels(dataset) == {}
    answer = client.post("/undo/", {"token": offered(page), "page": "/datasets/mine/"})
    assert answer["Location"] == "/datasets/mine/" and levels(dataset) == {"viewer": "manage"}
    shares = Entry.objects.filter(action__startswith="share").order_by("pk")
    assert [entry.action for entry in shares] == ["share.end", "share"]


def test_new_share_is_taken_back_and_others_stay(client: Any, member: User, viewer: User, stranger: User) -> None:
    dataset = belongings(member).dataset
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "view"}, follow=True)
    grant_access(dataset, to=stranger)
    client.post("/undo/", {"token": offered(page)})
    assert levels(dataset) == {"stranger": "view"}


@pytest.mark.medium
def test_nobody_else_can_use_the_button(client: Any, member: User, viewer: User, admin: User) -> None:
    dataset = belongings(member).dataset
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "view"}, follow=True)
    token = offered(page)
    for other in (viewer, admin):
        client.force_login(other)
        assert client.post("/undo/", {"token": token}).status_code == 409
    assert levels(dataset) == {"viewer": "view"}


def test_right_that_was_lost_meanwhile_is_missed(client: Any, member: User, viewer: User, stranger: User) -> None:
    owned = belongings(member)
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "view"}, follow=True)
    owned.dataset.owner = stranger
    owned.dataset.save()
    assert client.post("/undo/", {"token": offered(page)}).status_code == 404
    assert levels(owned.dataset) == {"viewer": "view"}


FOREIGN = signing.dumps({"user": 1, "action": "share"}, salt="other")


@pytest.mark.parametrize("token", ["", "forged", FOREIGN], ids=["none", "forged", "of another kind"])
def test_forged_token_does_nothing(client: Any, member: User, token: str) -> None:
    client.force_login(member)
    assert client.post("/undo/", {"token": token}).status_code == 409


@pytest.mark.medium
def test_button_stops_working_after_a_while(client: Any, member: User, viewer: User, monkeypatch: Any) -> None:
    dataset = belongings(member).dataset
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "view"}, follow=True)
    monkeypatch.setattr(undo, "OFFERED_SECONDS", -1)
    assert client.post("/undo/", {"token": offered(page)}).status_code == 409 and levels(dataset)


def test_undo_leads_to_no_other_site(client: Any, member: User, viewer: User) -> None:
    belongings(member)
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", {"to": "person:viewer", "access": "view"}, follow=True)
    assert client.post("/undo/", {"token": offered(page), "page": "//evil.example/"})["Location"] == "/"


def test_withdrawn_invitation_is_open_again_with_the_same_link(client: Any, admin: User) -> None:
    client.force_login(admin)
    page = client.post("/people/", {"note": "Nina", "role": "viewer"}).content.decode()
    link = re.search(r"/join/ls_inv_\w+/", page)[0]  # type: ignore[index]
    kept = Invitation.objects.values("hash", "note", "role", "invited_by", "expires_at").get()
    withdrawn = client.post(f"/people/invitations/{Invitation.objects.get().pk}/end/", follow=True)
    assert Client().get(link).status_code == 404
    for _twice in range(2):
        client.post("/undo/", {"token": offered(withdrawn)})
    assert Client().get(link).status_code == 200
    assert Invitation.objects.values(*kept).get() == kept
    assert list(
        Entry.objects.filter(action__startswith="invitation").order_by("pk").values_list("action", flat=True)
    ) == [
        "invitation.create",
        "invitation.end",
        "invitation.restore",
    ]


@pytest.mark.parametrize(("had", "sent"), [(True, {"remove": "champion"}), (False, {"alias": "champion"})])
def test_alias_points_where_it_pointed_before(client: Any, member: User, had: bool, sent: dict[str, str]) -> None:
    model = belongings(member).model
    if had:
        assert model.latest
        Alias.objects.create(model=model, version=model.latest, name="champion")
    client.force_login(member)
    page = client.post("/models/mine@1/alias/", sent, follow=True)
    assert Alias.objects.exists() is not had
    client.post("/undo/", {"token": offered(page)})
    assert Alias.objects.exists() is had


def test_revoked_token_works_again(client: Any, member: User) -> None:
    token, secret = services.make_token(user=member, name="nightly", scopes=["read"], days=9)
    kept = Token.objects.values("hash", "stamp", "name", "scopes", "user", "expires_at").get()
    client.force_login(member)
    page = client.post(f"/account/tokens/{token.pk}/end/", follow=True)
    assert not Token.objects.exists() and secret not in page.content.decode()
    for _twice in range(2):
        client.post("/undo/", {"token": offered(page)})
    assert Token.objects.values(*kept).get() == kept
    assert Entry.objects.filter(action="token.restore").count() == 1


def test_token_stays_revoked_after_a_new_password(client: Any, member: User) -> None:
    token, _secret = services.make_token(user=member, name="nightly", scopes=["read"], days=9)
    client.force_login(member)
    page = client.post(f"/account/tokens/{token.pk}/end/", follow=True)
    member.set_password("another-good-password")
    member.save()
    client.force_login(member)
    assert client.post("/undo/", {"token": offered(page)}).status_code == 409 and not Token.objects.exists()
