"""The lists of datasets, runs and models: search, order and addresses."""

from typing import Any

import pytest
from django.http import QueryDict

from datasets_app.models import Dataset, Version
from lists.columns import Column, column_heads
from lists.queries import lean_query, search_words
from testing.belongings import belongings, registered
from testing.experiments import row

LISTS = ("/datasets/", "/experiments/", "/models/")


def names(page: Any) -> list[str]:
    return [thing.name for thing in page.context["page"]]


def dataset(owner: Any, name: str, **facts: Any) -> Dataset:
    made = Dataset.objects.create(name=name, owner=owner, description=facts.pop("description", ""))
    Version.objects.create(dataset=made, number=1, author=owner, **({"rows": 2, "hash": "0" * 64} | facts))
    return made


@pytest.mark.parametrize(
    ("query", "lean"),
    [
        ("q=&owner=&sort=name", ""),
        ("q=tickets&sort=-rows&owner=", "q=tickets&sort=-rows"),
        ("columns=a&columns=b", ""),
        ("columns=b&page=2", "columns=b&page=2"),
    ],
)
def test_address_is_rid_of_what_is_empty_or_usual(query, lean):
    assert lean_query(QueryDict(query), {"sort": ["name"], "columns": ["a", "b"]}) == QueryDict(lean)


def test_search_takes_some_words_in_the_form_of_names():
    assert search_words("cafe\u0301  a") == ["caf\u00e9", "a"]
    assert len(search_words("word " * 1000)) == 20


def test_first_click_on_a_head_puts_the_best_on_top_and_the_next_one_turns_the_order():
    columns = [Column("name", "Name", "name"), Column("rows", "Rows", "rows", digits=0, descending_first=True)]
    assert [head["next"] for head in column_heads(columns, "name")] == ["-name", "-rows"]
    assert [head["order"] for head in column_heads(columns, "-rows")] == ["", "descending"]
    assert [head["next"] for head in column_heads(columns, "-rows")] == ["name", "rows"]


@pytest.mark.parametrize("address", LISTS)
def test_form_of_a_list_leads_to_a_lean_address(browser, member, address):
    belongings(member, "tweets")
    answer = browser.get(f"{address}?q=tweets&owner=&sort=")
    assert (answer.status_code, answer.url) == (302, f"{address}?q=tweets")


@pytest.mark.parametrize("address", LISTS)
def test_htmx_gets_the_rows_alone_and_back_the_whole_page(browser, member, address):
    belongings(member, "tweets")
    part = browser.get(f"{address}?q=twe", headers={"HX-Request": "true"})
    content = part.content.decode()
    assert content.lstrip().startswith('<div id="list"') and "tweets" in content and "<html" not in content
    assert 'hx-swap-oob="innerHTML:#live"' in content and "HX-Request" in part["Vary"]
    back = browser.get(address, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<html" in back.content.decode()


@pytest.mark.parametrize(
    ("query", "expected"),
    [("q=TICK", ["tickets"]), ("q=客服", ["tickets"]), ("q=moods+x", []), ("owner=me", ["moods", "tickets"]),
     ("sort=-rows", ["tickets", "moods"]), ("sort=rows", ["moods", "tickets"]), ("sort=-name", ["tickets", "moods"]),
     ("sort=version", ["tickets", "moods"]), ("sort=-updated", ["moods", "tickets"])],
)  # fmt: skip
def test_datasets_are_searched_and_sorted_by_their_newest_version(browser, member, stranger, query, expected):
    dataset(member, "tickets", rows=100, description="客服工單")
    moods = dataset(member, "moods", rows=1000)
    Version.objects.create(dataset=moods, number=2, author=member, rows=10, hash="1" * 64)
    dataset(stranger, "hidden")
    assert names(browser.get(f"/datasets/?{query}", follow=True)) == expected


@pytest.mark.parametrize("query", ["sort=owner__password", "sort=-labels", "owner=admin"])
def test_datasets_are_sorted_and_filtered_by_nothing_else(browser, query):
    assert browser.get(f"/datasets/?{query}").status_code == 400


def test_search_without_a_match_says_so_and_leads_back(browser, member):
    belongings(member, "tweets")
    for address, words in zip(LISTS, ("No datasets match", "No runs match", "No models match"), strict=True):
        page = browser.get(f"{address}?q=nothing").content.decode()
        assert words in page and f'href="{address}">Show all' in page and 'value="nothing"' in page


@pytest.mark.medium
@pytest.mark.parametrize("address", LISTS)
def test_lists_ask_the_database_as_often_for_many_rows_as_for_one(
    browser, member, address, django_assert_max_num_queries
):
    for i in range(30):
        dataset(member, f"data-{i}")
        row(member, f"run-{i}", accuracy=0.5)
        registered(member, f"model-{i}")
    with django_assert_max_num_queries(15):
        assert len(names(browser.get(address))) >= 25


def test_labels_are_one_bar_in_one_line(browser, member):
    dataset(member, "tickets", rows=10, labels={"bill": 5, "ship": 3, "other": 1, "rest": 1})
    page = browser.get("/datasets/").content.decode()
    assert '<rect x="50.0" width="30.0"' in page and "4 labels" in page and "bill 50%, ship 30%, other 10%, …" in page


def test_rows_are_compact_until_one_changes_it_back(browser, member):
    belongings(member, "mine")
    assert "data-density" not in browser.get("/datasets/").content.decode()
    answer = browser.post("/density/", {"density": "compact", "page": "/datasets/?q=mine"})
    assert answer.url == "/datasets/?q=mine"
    page = browser.get("/datasets/").content.decode()
    assert 'data-density="compact"' in page and "Comfortable rows" in page
    browser.post("/density/", {"density": "comfortable", "page": "https://elsewhere.example/"})
    assert "data-density" not in browser.get("/models/").content.decode()
    assert browser.post("/density/", {"page": "https://elsewhere.example/"}).url == "/"
