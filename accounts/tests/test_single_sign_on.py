"""Single sign-on by OpenID Connect, against a real provider: a process of its own, reached over HTTP."""

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from accounts.models import Role, User
from audit.models import Entry
from testing.site import free_port

PEOPLE = [
    {"sub": "7", "email": "member@example.org", "email_verified": True, "preferred_username": "whoever"},
    {"sub": "8", "email": "member@example.org", "email_verified": False},
    {"sub": "9", "email": "new@example.org", "email_verified": True, "preferred_username": "new"},
]


def start_provider(port: int) -> subprocess.Popen[bytes]:
    claims = [f"--user-claims={json.dumps(person)}" for person in PEOPLE]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", f"--port={port}", *claims]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _try in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/.well-known/openid-configuration", timeout=1)
            return process
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the provider does not answer")


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    port = free_port()
    process = start_provider(port)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture
def single_sign_on(provider: str, settings: Any) -> str:
    settings.SINGLE_SIGN_ON = True
    settings.SOCIALACCOUNT_PROVIDERS = app(provider)
    return provider


def app(provider: str) -> dict[str, Any]:
    ours = {"provider_id": "oidc", "name": "Acme sign-on", "client_id": "lorasite", "secret": "known-to-both"}
    return {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [{**ours, "settings": {"server_url": provider}}]}}


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def consent(address: str, sub: str) -> str:
    """What the browser does at the provider: the person says who they are; back comes the address to go on to."""
    body = urllib.parse.urlencode({"sub": sub}).encode()
    try:
        urllib.request.build_opener(Stay).open(address, body, timeout=10)
    except urllib.error.HTTPError as error:
        return str(error.headers["Location"])
    raise AssertionError("the provider did not send the browser back")


def sign_in(sub: str) -> tuple[Client, Any]:
    browser = Client()
    redirect = browser.post("/sso/oidc/login/")
    assert redirect.status_code == 302 and "code_challenge=" in redirect["Location"]
    back = consent(redirect["Location"], sub)
    return browser, browser.get(back.partition("//testserver")[2], follow=True)


@pytest.mark.medium
def test_existing_person_is_signed_in_and_it_is_audited(single_sign_on: str, member: User) -> None:
    assert "Acme sign-on" in Client().get("/login/").content.decode()
    browser, _answer = sign_in("7")
    assert browser.get("/account/").context["user"] == member
    again, _answer = sign_in("7")
    assert again.get("/").status_code == 200 and User.objects.count() == 1
    assert Entry.objects.filter(action="user.login", username="member").count() == 2


@pytest.mark.medium
def test_password_ends_when_the_provider_is_first_to_prove_the_address(single_sign_on: str, member: User) -> None:
    """Whoever set it may have claimed somebody else's address, and waited for them."""
    thief = Client()
    thief.post("/login/", {"username": "member", "password": "correct-horse-9"})
    browser, _answer = sign_in("7")
    assert browser.get("/").status_code == 200 and thief.get("/").status_code == 302
    member.refresh_from_db()
    assert not member.has_usable_password()


def test_address_that_the_provider_has_not_verified_opens_nothing(single_sign_on: str, member: User) -> None:
    browser, _answer = sign_in("8")
    assert browser.get("/").status_code == 302


def test_unknown_person_gets_no_account(single_sign_on: str, member: User) -> None:
    browser, answer = sign_in("9")
    assert answer.status_code in (200, 403) and browser.get("/").status_code == 302
    assert User.objects.count() == 1


def test_unknown_person_becomes_a_viewer_where_the_installation_allows_it(
    single_sign_on: str, settings: Any, db: None
) -> None:
    settings.OIDC_SIGN_UP = True
    browser, _answer = sign_in("9")
    assert browser.get("/").status_code == 200
    assert User.objects.get().role == Role.VIEWER and Entry.objects.filter(action="user.join").exists()


@pytest.mark.medium
def test_closed_account_stays_closed(single_sign_on: str, member: User) -> None:
    sign_in("7")
    User.objects.update(is_active=False)
    browser, _answer = sign_in("7")
    assert browser.get("/").status_code == 302


def test_unsolicited_answer_is_refused(single_sign_on: str, member: User) -> None:
    redirect = Client().post("/sso/oidc/login/")
    back = consent(redirect["Location"], "7")
    victim = Client()
    answer = victim.get(back.partition("//testserver")[2])
    assert answer.status_code in (200, 302, 401, 403) and victim.get("/").status_code == 302


def test_unreachable_provider_is_reported(settings: Any, member: User) -> None:
    settings.SINGLE_SIGN_ON, settings.SOCIALACCOUNT_PROVIDERS = True, app(f"http://127.0.0.1:{free_port()}")
    answer = Client().post("/sso/oidc/login/", follow=True)
    assert answer.status_code == 503 and "does not answer" in answer.content.decode()


@pytest.mark.medium
def test_without_a_provider_its_pages_are_missing(client: Any, member: User) -> None:
    assert client.post("/sso/oidc/login/").status_code == 404
    assert "/sso/" not in client.get("/login/").content.decode()
