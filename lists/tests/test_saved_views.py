"""Saved views: one person's names for what a list is searched, filtered and sorted by."""

import pytest

from accounts.models import User
from lists.models import SavedView
from lists.services import MOST_VIEWS
from testing.belongings import belongings

LISTS = {"dataset": "/datasets/", "experiment": "/experiments/", "model": "/models/"}


@pytest.mark.medium
@pytest.mark.parametrize(("kind", "address"), LISTS.items())
def test_view_is_saved_shown_above_its_list_and_removed(browser, member, kind, address):
    belongings(member, "mine")
    page = browser.get(f"{address}?q=mine&owner=me&page=1").content.decode()
    assert 'name="query" value="q=mine&amp;owner=me"' in page and "Save this view" in page
    saved = browser.post(f"/views/{kind}/", {"name": " My  own ", "query": "q=mine&owner=me&page=2&sort="})
    assert saved.url == f"{address}?q=mine&owner=me&page=2&sort="
    page = browser.get(f"{address}?q=mine&owner=me").content.decode()
    assert f'href="{address}?q=mine&amp;owner=me" aria-current="page">My own<' in page and "Save this view" not in page
    others = [other for other in LISTS.values() if other != address]
    assert all("My own" not in browser.get(other).content.decode() for other in others)
    browser.post(f"/views/{kind}/", {"remove": SavedView.objects.get().pk})
    assert not SavedView.objects.exists()


def test_list_as_it_comes_has_nothing_to_save(browser, member):
    belongings(member, "mine")
    assert "Save this view" not in browser.get("/datasets/").content.decode()


@pytest.mark.parametrize(
    ("name", "query", "says"),
    [
        ("", "q=a", "1 to 60 characters"),
        ("x" * 61, "q=a", "1 to 60 characters"),
        ("MINE", "q=a", "already"),
        ("other", "sort=&page=3", "nothing to save"),
        ("other", "q=" + "a" * 1000, "too long"),
    ],
)
def test_view_that_cannot_be_saved_is_refused_with_the_reason(browser, member, name, query, says):
    browser.post("/views/dataset/", {"name": "mine", "query": "owner=me"})
    answer = browser.post("/views/dataset/", {"name": name, "query": query}, follow=True)
    assert any(says in str(message) for message in answer.context["messages"])
    assert SavedView.objects.count() == 1


@pytest.mark.medium
def test_number_of_views_is_limited(browser):
    for i in range(MOST_VIEWS + 1):
        browser.post("/views/model/", {"name": f"view {i}", "query": "owner=me"})
    assert SavedView.objects.count() == MOST_VIEWS


def test_views_are_seen_and_removed_by_their_owner_alone(browser, member, stranger: User):
    belongings(member, "mine")
    view = SavedView.objects.create(person=stranger, kind="dataset", name="secret", name_key="secret", query="q=x")
    assert "secret" not in browser.get("/datasets/").content.decode()
    for remove in (view.pk, "x", "9" * 30):
        assert browser.post("/views/dataset/", {"remove": remove}).status_code == 404
    assert browser.post("/views/user/", {"name": "a", "query": "q=a"}).status_code == 404
    assert SavedView.objects.filter(pk=view.pk).exists()


def test_name_and_query_are_escaped(browser, member):
    belongings(member, "mine")
    browser.post("/views/dataset/", {"name": "<b>x</b>", "query": 'q="><script>1</script>'})
    page = browser.get("/datasets/").content.decode()
    assert "<b>x" not in page and "<script>1" not in page and "q=%22%3E%3Cscript%3E1" in page
