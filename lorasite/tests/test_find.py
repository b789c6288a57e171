"""The search over pages, actions and objects: everybody is offered only what they may open."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from lorasite.find import MOST, find
from testing.belongings import belongings

pytestmark = pytest.mark.django_db


def titles(user: Any, text: str) -> dict[str, list[str]]:
    return {group.title: [match.title for match in group.matches] for group in find(user, text)}


def test_objects_are_found_by_a_part_of_their_name(admin: Any) -> None:
    belongings(admin, "moods-of-tweets")
    assert titles(admin, "OF-tw") == {name: ["moods-of-tweets"] for name in ("Datasets", "Runs", "Models")}


def test_name_is_found_as_other_machines_type_it(admin: Any) -> None:
    belongings(admin, "caf\u00e9")
    assert titles(admin, "cafe\u0301")["Runs"] == ["caf\u00e9"]


def test_pages_and_actions_are_found_by_their_titles_in_any_case_and_width(admin: Any) -> None:
    assert titles(admin, "ｄａｔａ") == {"Pages": ["Datasets"], "Actions": ["Add data"]}


def test_nobody_is_offered_what_they_may_not_open(admin: Any, member: Any, viewer: Any) -> None:
    belongings(admin, "private")
    assert titles(member, "private") == titles(viewer, "private") == {}
    assert "Train" in titles(member, "")["Pages"] and "Train" not in titles(viewer, "")["Pages"]
    assert "Add data" not in titles(viewer, "").get("Actions", [])
    assert "People" not in titles(member, member.username) and titles(admin, member.username)["People"]


@pytest.mark.slow
def test_every_match_leads_to_a_page(client: Any, admin: Any, member: Any) -> None:
    belongings(member, "mine")
    for person in (admin, member):
        client.force_login(person)
        links = [match.href for text in ("", "mine", "m") for group in find(person, text) for match in group.matches]
        assert len(links) > 9
        assert {link for link in links if client.get(link, follow=True).status_code != 200} == set()


def test_search_takes_a_query_per_kind_and_lists_the_newest(admin: Any) -> None:
    from datasets_app.models import Dataset

    Dataset.objects.bulk_create(Dataset(name=f"moods-{n}", owner=admin) for n in range(200))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert titles(admin, "moods")["Datasets"] == [f"moods-{n}" for n in range(199, 199 - MOST, -1)]
    assert len(queries) <= 5  # one is for the role


def test_page_works_without_a_script_and_the_palette_gets_the_list_alone(client: Any, member: Any) -> None:
    client.force_login(member)
    page = client.get("/find/?q=data").content.decode()
    assert '<a href="/datasets/">Datasets</a>' in page and 'role="option"' not in page
    part = client.get("/find/?q=data", headers={"HX-Request": "true"}).content.decode()
    assert (
        re.findall(r'role="option"[^>]*href="([^"]+)"', part) == ["/datasets/", "/datasets/new/"]
        and "<html" not in part
    )
    assert "Nothing has a name like that." in client.get("/find/?q=zzz").content.decode()
