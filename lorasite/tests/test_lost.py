"""Error pages lead on: to the list that the address belongs to, and to objects with similar names."""

from typing import Any

import pytest

from testing.belongings import belongings

pytestmark = pytest.mark.django_db


def page(client: Any, address: str) -> str:
    return str(client.get(address, HTTP_ACCEPT="text/html").content.decode())


@pytest.mark.parametrize("address", ["/datasets/mods/", "/experiments/mods/", "/models/MODS/"])
def test_address_with_a_typing_error_leads_to_the_object_that_was_meant(client: Any, member: Any, address: str) -> None:
    belongings(member, "moods")
    belongings(member, "quite-another")
    client.force_login(member)
    shown = page(client, address)
    assert f'href="/{address.split("/")[1]}/moods/"' in shown and "quite-another" not in shown


def test_similar_names_of_others_are_not_told(client: Any, member: Any, stranger: Any) -> None:
    belongings(stranger, "moods")
    client.force_login(member)
    assert "moods" not in page(client, "/datasets/mods/")


@pytest.mark.parametrize(
    ("address", "title"),
    [
        ("/datasets/nothing/", "Datasets"),
        ("/datasets/a/b/c/", "Datasets"),
        ("/experiments/nothing/files/x", "Runs"),
        ("/models/nothing/", "Models"),
        ("/datasets/?sort=wrong", "Datasets"),
    ],
)
def test_error_page_leads_to_the_list_of_its_address(client: Any, member: Any, address: str, title: str) -> None:
    client.force_login(member)
    assert f"Go to {title}</a>" in page(client, address)


def test_error_page_offers_no_list_that_the_person_may_not_open(client: Any, member: Any, admin: Any) -> None:
    client.force_login(member)
    assert "Go to People" not in page(client, "/people/nobody/")
    client.force_login(admin)
    assert "Go to People" in page(client, "/people/nobody/")


def test_error_page_says_its_message_once(client: Any, member: Any) -> None:
    client.force_login(member)
    shown = page(client, "/experiments/?sort=wrong")
    assert shown.split("</title>")[1].count("sort is one of:") == 1


def test_similar_names_are_found_in_any_language(client: Any, member: Any) -> None:
    belongings(member, "moods")
    client.force_login(member)
    shown = client.get("/datasets/mods/", HTTP_ACCEPT="text/html", HTTP_ACCEPT_LANGUAGE="zh-Hant").content.decode()
    assert 'href="/datasets/moods/"' in shown


def test_very_long_name_has_an_error_page(client: Any, member: Any) -> None:
    belongings(member, "moods")
    client.force_login(member)
    assert "Go to Datasets" in page(client, f"/datasets/{'m' * 5000}/")
