"""Guessing passwords gets slow, for the guesser alone."""

from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from web.requests import client_network

RIGHT, TRIES = "correct-horse-9", settings.AXES_FAILURE_LIMIT


def page(password: str, username: str = "member", address: str = "192.0.2.1") -> int:
    form = {"username": username, "password": password}
    return Client().post("/login/", form, REMOTE_ADDR=address).status_code


def api(password: str) -> Any:
    sent = {"username": "member", "password": password}
    return APIClient().post("/api/login", sent, format="json", REMOTE_ADDR="192.0.2.1")


def guess(times: int) -> None:
    for n in range(times):
        assert page(f"guess-{n}") == 200


@pytest.mark.medium
def test_after_many_wrong_passwords_even_the_right_one_waits_on_page_and_api(member: User) -> None:
    guess(TRIES)
    assert page(RIGHT) == 429
    refused = api(RIGHT)
    assert refused.status_code == 429 and refused.json()["code"] == "too_many_tries" and refused["Retry-After"] == "300"


@pytest.mark.medium
def test_guesses_over_the_api_count_too(member: User) -> None:
    guess(TRIES - 1)
    assert api("guess").status_code == 401
    assert page(RIGHT) == 429


@pytest.mark.medium
def test_others_and_the_person_from_elsewhere_can_still_sign_in(member: User, stranger: User) -> None:
    guess(TRIES)
    assert page(RIGHT, username="stranger") == 302
    assert page(RIGHT, address="192.0.2.2") == 302


@pytest.mark.medium
def test_correct_password_resets_the_count(member: User) -> None:
    for _round in range(3):
        guess(TRIES - 1)
        assert page(RIGHT) == 302


@pytest.mark.medium
def test_addresses_of_one_ipv6_network_are_counted_as_one(member: User) -> None:
    """Whoever has an IPv6 address has 2**64 of them."""
    for n in range(TRIES):
        assert page(f"guess-{n}", address=f"2001:db8:0:7::{n:x}") == 200
    assert page(RIGHT, address="2001:db8:0:7:ffff:ffff:ffff:ffff") == 429
    assert page(RIGHT, address="2001:db8:0:8::1") == 302


def test_network_has_one_canonical_form() -> None:
    def network(address: str) -> str | None:
        request = HttpRequest()
        request.META["REMOTE_ADDR"] = address
        return client_network(request)

    assert network("2001:0DB8::1") == network("2001:db8::ffff") == "2001:db8::" != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1" and network("") is None
    assert network("fe80::1%eth0") == "fe80::"
