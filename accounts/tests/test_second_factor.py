"""The second factor: codes of an authenticator app, which page and API require, and recovery codes."""

import base64
import hmac
import re
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.core.cache import cache
from django.db import connections
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import UsedCode, User
from audit.models import Entry

LOGIN = {"username": "member", "password": "correct-horse-9"}


def code(secret: str, ahead: int = 0) -> str:
    """RFC 6238, as an authenticator app computes it."""
    counter = struct.pack(">Q", int(time.time()) // 30 + ahead)
    mac = hmac.digest(base64.b32decode(secret), counter, "sha1")
    start = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[start : start + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def forget_used_codes() -> None:
    cache.clear()
    UsedCode.objects.all().delete()


def set_up(settings: Any) -> str:
    """Set an authenticator app up on the pages, as `member`; its secret."""
    settings.SECOND_FACTOR = True
    cache.clear()
    browser = Client()
    browser.post("/login/", LOGIN)
    response = browser.get("/account/second-factor/totp/activate/")
    if response.status_code == 302:
        browser.post(response["Location"], {"password": LOGIN["password"]})
        response = browser.get("/account/second-factor/totp/activate/")
    page = response.content.decode()
    assert "data:image/svg+xml" in page and "unsafe-inline" not in response["Content-Security-Policy"]
    secret = re.search(r'value="([A-Z2-7]{16,})"', page)[1]  # type: ignore[index]
    answer = browser.post("/account/second-factor/totp/activate/", {"code": code(secret)})
    assert answer.status_code == 302, answer.content.decode()
    return secret


@pytest.fixture
def protected(member: User, settings: Any) -> str:
    """The secret of an authenticator app that `member` has set up on the pages."""
    secret = set_up(settings)
    forget_used_codes()  # the code was used; a person would wait for the next
    return secret


@pytest.mark.medium
def test_page_asks_for_the_code_after_the_password(protected: str) -> None:
    browser = Client()
    response = browser.post("/login/", LOGIN)
    assert response["Location"].startswith("/account/second-factor/authenticate/")
    assert browser.get("/").status_code == 302
    wrong = browser.post("/account/second-factor/authenticate/", {"code": "000000"})
    assert wrong.status_code == 200 and browser.get("/").status_code == 302
    browser.post("/account/second-factor/authenticate/", {"code": code(protected)})
    assert browser.get("/").status_code == 200
    actions = list(Entry.objects.order_by("pk").values_list("action", "result"))
    assert ("second_factor.add", "ok") in actions and ("second_factor.check", "refused") in actions


def test_api_requires_the_code_too(protected: str) -> None:
    def sign_in(**more: str) -> Any:
        return APIClient().post("/api/login", LOGIN | more, format="json")

    refused = sign_in()
    assert refused.status_code == 401 and refused.json()["code"] == "second_factor_needed"
    assert sign_in(code="000000").status_code == 401
    assert "access" in sign_in(code=code(protected)).json()
    assert sign_in(code=code(protected)).status_code == 401  # a code works once


@pytest.mark.medium
def test_recovery_code_works_once(protected: str, member: User) -> None:
    codes = Authenticator.objects.get(user=member, type=Authenticator.Type.RECOVERY_CODES).wrap().get_unused_codes()
    signs_in = [APIClient().post("/api/login", LOGIN | {"code": codes[0]}, format="json").status_code for _ in "12"]
    assert signs_in == [200, 401]


def test_secret_is_encrypted_in_the_database(protected: str) -> None:
    assert protected not in str(list(Authenticator.objects.values()))


@pytest.mark.medium
def test_factor_stays_when_the_installation_no_longer_offers_one(protected: str, settings: Any) -> None:
    settings.SECOND_FACTOR = False
    browser = Client()
    assert "authenticate" in browser.post("/login/", LOGIN)["Location"]
    browser.post("/account/second-factor/authenticate/", {"code": code(protected)})
    assert browser.get("/account/second-factor/").status_code == 200
    assert browser.get("/account/second-factor/totp/activate/").status_code == 404


@pytest.mark.medium
def test_wrong_codes_are_limited(protected: str) -> None:
    browser = Client()
    browser.post("/login/", LOGIN)
    tries = [browser.post("/account/second-factor/authenticate/", {"code": f"{n:06}"}) for n in range(12)]
    assert browser.get("/").status_code == 302
    assert any("Too many" in t.content.decode() or t.status_code == 429 for t in tries)


@pytest.mark.medium
def test_admin_removes_a_lost_factor_and_it_is_audited(protected: str, admin: User, client: Any) -> None:
    client.force_login(admin)
    client.post("/people/member/", {"do": "second_factor"})
    assert APIClient().post("/api/login", LOGIN, format="json").status_code == 200
    removed = Entry.objects.filter(action="second_factor.remove", object_id="member", username="admin")
    assert sorted(removed.values_list("details__kind", flat=True)) == ["recovery_codes", "totp"]


def sign_in(given: str) -> Any:
    return APIClient().post("/api/login", LOGIN | {"code": given}, format="json")


def by_page(given: str) -> bool:
    browser = Client()
    browser.post("/login/", LOGIN)
    browser.post("/account/second-factor/authenticate/", {"code": given})
    return browser.get("/").status_code == 200


@pytest.mark.medium
def test_code_works_once_even_when_every_process_has_forgotten_it(protected: str) -> None:
    """A restart empties a process's memory, and allauth's own note of the code ends before the code does."""
    used = code(protected)
    assert by_page(used)
    cache.clear()
    assert not by_page(used) and sign_in(used).status_code == 401
    assert not by_page(f"{used[:3]} {used[3:]}") and sign_in(f"{used[:3]}-{used[3:]}").status_code == 401
    later = code(protected, ahead=1)
    assert sign_in(later).status_code == 200 and not by_page(later)


def test_code_that_set_the_app_up_does_not_sign_in(member: User, settings: Any) -> None:
    used = code(set_up(settings))
    cache.clear()
    assert sign_in(used).status_code == 401


@pytest.mark.medium
def test_of_two_who_send_one_code_at_the_same_moment_one_gets_in(transactional_db: None, protected: str) -> None:
    recovery = Authenticator.objects.get(type=Authenticator.Type.RECOVERY_CODES).wrap().get_unused_codes()[0]
    for given in (code(protected), recovery):
        cache.clear()

        def send(_turn: int, given: str = given) -> int:
            try:
                return int(sign_in(given).status_code)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(send, range(4))) == [200, 401, 401, 401]


@pytest.mark.medium
def test_wrong_codes_over_the_api_and_on_the_page_count_together(protected: str) -> None:
    assert [sign_in(f"00000{n}").status_code for n in range(5)] == [401] * 5
    refused = sign_in(code(protected))
    assert refused.status_code == 429 and refused.json()["code"] == "too_many_tries"
    assert not by_page(code(protected))


def test_wrong_codes_are_counted_across_processes(settings: Any) -> None:
    assert "locmem" not in settings.CACHES["default"]["BACKEND"]
