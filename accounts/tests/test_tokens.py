"""Personal API tokens: shown once, stored as a hash, valid for their scopes until they expire."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import RefreshToken

from accounts import secrets, services, sharing
from accounts.models import Token, User
from audit.models import Entry
from testing.belongings import belongings
from web.errors import ConflictError, NotAllowedError


def token_of(user: User, *scopes: str, days: int = 1) -> str:
    return services.make_token(user=user, name="script", scopes=list(scopes) or ["read", "write"], days=days)[1]


def fetch_status(secret: str, path: str = "/api/datasets", method: str = "get", body: Any = None) -> int:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return int(getattr(client, method)(path, body, format="json").status_code)


def test_token_has_the_published_format_and_its_checksum_detects_a_typo() -> None:
    secret = secrets.generate("pat")
    assert re.fullmatch(secrets.PATTERN, secret) and secrets.is_well_formed(secret, "pat")
    other = "a" if secret[20] != "a" else "b"
    for wrong in (secret[:-1], secret + "0", secret[:20] + other + secret[21:], secret.replace("pat", "inv"), ""):
        assert not secrets.is_well_formed(wrong, "pat")


def test_secret_is_shown_once_and_stored_as_a_hash(client: Any, member: User) -> None:
    client.force_login(member)
    page = client.post("/account/tokens/", {"name": "nightly", "scopes": ["read"], "days": "30"}).content.decode()
    (secret,) = set(re.findall(secrets.PATTERN, page))
    assert fetch_status(secret) == 200
    assert not re.search(secrets.PATTERN, client.get("/account/tokens/").content.decode())
    row = Token.objects.values().get()
    assert secret not in str(row) and row["hash"] == secrets.digest(secret)
    assert secret not in str(list(Entry.objects.values())) and Entry.objects.filter(action="token.create").exists()


def test_last_use_is_listed(client: Any, member: User) -> None:
    secret = token_of(member)
    client.force_login(member)
    assert "never" in client.get("/account/tokens/").content.decode()
    fetch_status(secret)
    token = Token.objects.get()
    assert token.last_used_at and token.last_address == "127.0.0.1"
    assert "127.0.0.1" in client.get("/account/tokens/").content.decode()


@pytest.mark.parametrize(
    ("scopes", "path", "method", "status"),
    [
        (["read"], "/api/datasets", "get", 200),
        (["read"], "/api/train", "post", 403),
        (["read"], "/api/predict", "post", 403),
        (["predict"], "/api/predict", "post", 400),
        (["predict"], "/api/datasets", "get", 403),
        (["write"], "/api/train/validate", "post", 400),
        (["write"], "/api/datasets", "get", 403),
    ],
)
def test_token_may_do_what_its_scopes_allow(
    member: User, scopes: list[str], path: str, method: str, status: int
) -> None:
    assert (
        fetch_status(token_of(member, *scopes), path, method, {"nonsense": 1} if method == "post" else None) == status
    )


def test_admins_token_without_the_admin_scope_has_a_members_rights(admin: User, member: User) -> None:
    belongings(member, "private")
    plain, full = token_of(admin, "read"), token_of(admin, "read", "admin")
    assert (fetch_status(plain, "/api/audit/logs"), fetch_status(full, "/api/audit/logs")) == (403, 200)
    assert (fetch_status(plain, "/api/datasets/private"), fetch_status(full, "/api/datasets/private")) == (404, 200)
    with pytest.raises(NotAllowedError):
        token_of(member, "read", "admin")


def test_token_ends_on_its_day_and_when_it_is_ended(client: Any, member: User) -> None:
    secret, other = token_of(member), token_of(member)
    Token.objects.filter(hash=secrets.digest(secret)).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert (fetch_status(secret), fetch_status(other)) == (401, 200)
    client.force_login(member)
    client.post(f"/account/tokens/{Token.objects.get(hash=secrets.digest(other)).pk}/end/")
    assert fetch_status(other) == 401


def test_number_of_tokens_of_a_person_is_limited(member: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "TOKENS_EACH", 2)
    token_of(member), token_of(member)
    with pytest.raises(ConflictError):
        token_of(member)


# The person is disabled, changes the password, or leaves a group, with every kind of token and a session in hand.


@pytest.fixture
def in_hand(member: User, client: Any) -> Callable[[], dict[str, int]]:
    login = {"username": "member", "password": "correct-horse-9"}
    tokens = APIClient().post("/api/login", login, format="json").json()
    personal = token_of(member)
    client.post("/login/", login)

    def use(path: str = "/api/datasets") -> dict[str, int]:
        refreshed = APIClient().post("/api/login/refresh", {"refresh": tokens["refresh"]}, format="json")
        page = path.replace("/api", "") + "/"
        statuses = {"access": fetch_status(tokens["access"], path), "personal": fetch_status(personal, path)}
        return statuses | {"refresh": refreshed.status_code, "session": client.get(page).status_code}

    return use


def test_disabled_person_is_out_with_the_next_request(in_hand: Callable[..., Any], member: User) -> None:
    assert fetch_status(str(RefreshToken.for_user(member).access_token)) == 200
    User.objects.filter(pk=member.pk).update(is_active=False)
    assert in_hand() == {"access": 401, "personal": 401, "refresh": 401, "session": 302}


def test_changed_password_ends_everything_however_it_was_changed(in_hand: Callable[..., Any], member: User) -> None:
    member.set_password("battery-staple-10")
    member.save()
    statuses = in_hand()
    assert (statuses["access"], statuses["personal"], statuses["session"]) == (401, 401, 302)
    services.after_password_change(member)
    assert in_hand()["refresh"] == 401 and not Token.objects.exists()


@pytest.mark.medium
def test_person_removed_from_a_group_loses_access_with_every_token(
    in_hand: Callable[..., Any], member: User, stranger: User
) -> None:
    team = Group.objects.create(name="team")
    member.groups.add(team)
    shared = belongings(stranger, "shared").dataset
    sharing.set_access(user=stranger, obj=shared, to=team, level="view")
    assert in_hand("/api/datasets/shared") == {"access": 200, "personal": 200, "refresh": 200, "session": 200}
    member.groups.remove(team)
    statuses = in_hand("/api/datasets/shared")
    assert (statuses["access"], statuses["personal"], statuses["session"]) == (404, 404, 404)


def test_demoted_admin_cannot_read_the_audit_log_with_an_old_token(api: Callable[..., Any], admin: User) -> None:
    client = api(admin)
    assert client.get("/api/audit/logs").status_code == 200
    User.objects.get(pk=admin.pk).groups.clear()
    assert client.get("/api/audit/logs").status_code == 403
