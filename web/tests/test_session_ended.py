"""A page whose session has ended loses nothing that is on it."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db
SITE = "http://testserver"


def after_signing_in(answer: Any) -> str:
    """Return the address to which signing in leads."""
    assert answer.status_code == 302
    return parse_qs(urlsplit(answer.headers["Location"]).query)["next"][0]


@pytest.mark.parametrize("path", ["/", "/predict/", "/system/"])
def test_part_of_a_page_is_never_replaced_by_the_sign_in_page(client: Client, path: str) -> None:
    answer = client.get(path, headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.content.decode() == "Your session has ended. Sign in again."
    assert client.post(path, headers={"HX-Request": "true"}).status_code == 401


def test_signing_in_leads_back_to_the_page_of_the_form(client: Client) -> None:
    page = "/train/?dataset=moods%401&preset=quick"
    assert after_signing_in(client.post("/train/", headers={"Referer": SITE + page})) == page
    card = client.post("/models/moods/card/", headers={"Referer": f"{SITE}/models/moods/"})
    assert after_signing_in(card) == "/models/moods/"
    assert after_signing_in(client.get("/train/?preset=best")) == "/train/?preset=best"


@pytest.mark.parametrize(
    "page", ["", "https://elsewhere.example/train/", "javascript:alert(1)", "//elsewhere.example/"]
)
def test_page_of_another_site_is_none_to_come_back_to(client: Client, page: str) -> None:
    assert after_signing_in(client.post("/train/", headers={"Referer": page})) == "/"


def test_signing_out_asks_for_no_page(client: Client, member: Any) -> None:
    client.force_login(member)
    answer = client.post("/logout/", headers={"Referer": f"{SITE}/train/"})
    assert "next" not in answer.headers["Location"]
