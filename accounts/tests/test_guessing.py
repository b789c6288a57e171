"""Guessing passwords gets slow, for the guesser alone."""

from typing import Any

from django.conf import settings
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User

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


def test_after_many_wrong_passwords_even_the_right_one_waits_on_page_and_api(member: User) -> None:
    guess(TRIES)
    assert page(RIGHT) == 429
    refused = api(RIGHT)
    assert refused.status_code == 429 and refused.json()["code"] == "too_many_tries" and refused["Retry-After"] == "300"


def test_guesses_over_the_api_count_too(member: User) -> None:
    guess(TRIES - 1)
    assert api("guess").status_code == 401
    assert page(RIGHT) == 429


def test_others_and_the_person_elsewhere_sign_in_as_ever(member: User, stranger: User) -> None:
    guess(TRIES)
    assert page(RIGHT, username="stranger") == 302
    assert page(RIGHT, address="192.0.2.2") == 302


def test_a_right_password_forgives_the_wrong_ones(member: User) -> None:
    for _round in range(3):
        guess(TRIES - 1)
        assert page(RIGHT) == 302
