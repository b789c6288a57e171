"""Tags and notes: on pages, in the API and as a filter of lists."""

from typing import Any

import pytest

from accounts.permissions import grant_access
from audit.models import Entry
from datasets_app.models import Dataset
from lists.models import LONGEST_NOTE, Tag
from lists.selectors import tag_choices
from lists.services import MOST_TAGS
from testing.belongings import belongings

HTMX = {"HX-Request": "true"}
KINDS = (
    ("dataset", "/datasets/", "/api/datasets/ours"),
    ("experiment", "/experiments/", "/api/experiments/ours"),
    ("model", "/models/", "/api/models/ours"),
)


def names(page: Any) -> list[str]:
    return [thing.name for thing in page.context["page"]]


@pytest.fixture
def kept(member: Any) -> Any:
    return belongings(member, "ours")


@pytest.mark.parametrize(("kind", "address", "api_address"), KINDS)
def test_tag_is_added_found_by_a_click_and_removed(browser, member, kept, kind, address, api_address):
    belongings(member, "other")
    browser.post(f"/tags/{kind}/ours/", {"tag": " 重要 "})
    page = browser.get(address).content.decode()
    assert f'href="{address}?tag=%E9%87%8D%E8%A6%81"' in page and "<option>重要</option>" in page
    assert names(browser.get(f"{address}?tag=重要")) == ["ours"]
    browser.post(f"/tags/{kind}/ours/", {"remove": "重要"})
    assert not Tag.objects.exists() and names(browser.get(f"{address}?tag=重要")) == []
    assert [entry.action for entry in Entry.objects.order_by("pk")][-2:] == ["tag.add", "tag.remove"]


@pytest.mark.medium
@pytest.mark.parametrize(("kind", "address", "api_address"), KINDS)
def test_api_has_tags_and_note_and_changes_what_is_sent(api, member, kept, kind, address, api_address):
    client = api(member)
    changed = client.patch(api_address, {"tags": ["b", "A"], "note": "Ours.\nKeep."}, format="json")
    assert changed.status_code == 200 and changed.json()["tags"] == ["A", "b"]
    client.patch(api_address, {"tags": ["a", "c"]}, format="json")
    answer = client.get(api_address).json()
    assert (answer["tags"], answer["note"]) == (["A", "c"], "Ours.\nKeep.")
    for wrong in ({"tags": "a"}, {"tags": ["a b"]}, {"note": 3}, {"nots": "x"}, {}):
        assert client.patch(api_address, wrong, format="json").status_code == 400
    assert client.get(api_address).json() == answer


def test_tags_that_differ_in_case_or_width_are_one(browser, kept):
    for tag in ("Prod", "PROD", "ｐｒｏｄ"):
        browser.post("/tags/dataset/ours/", {"tag": tag})
    assert [tag.name for tag in kept.dataset.tags.all()] == ["Prod"]
    assert names(browser.get("/datasets/?tag=prod")) == ["ours"]


@pytest.mark.parametrize("tag", ["", "two words", "a/b", "x" * 81, "<b>"])
def test_refused_tag_is_explained_where_it_was_entered(browser, kept, tag):
    part = browser.post("/tags/dataset/ours/", {"tag": tag}, headers=HTMX).content.decode()
    assert 'aria-invalid="true"' in part and 'id="annotations-error"' in part and "<html" not in part
    assert "messages" in browser.post("/tags/dataset/ours/", {"tag": tag}, follow=True).context
    assert not Tag.objects.exists()


@pytest.mark.medium
def test_number_of_tags_and_length_of_notes_are_limited(browser, kept):
    for i in range(MOST_TAGS + 1):
        browser.post("/tags/model/ours/", {"tag": f"t{i}"})
    assert kept.model.tags.count() == MOST_TAGS
    part = browser.post("/notes/model/ours/", {"note": "x" * (LONGEST_NOTE + 1)}, headers=HTMX).content.decode()
    kept.model.refresh_from_db()
    assert "at most 2000 characters" in part and kept.model.note == ""


def test_note_is_saved_in_place_and_shown_as_text(browser, kept):
    part = browser.post(
        "/notes/experiment/ours/", {"note": "<script>1</script>\r\nLine"}, headers=HTMX
    ).content.decode()
    assert "&lt;script&gt;1&lt;/script&gt;<br>Line" in part and "<script>" not in part
    assert "Line" in browser.get(f"/runs/{kept.task.pk}/").content.decode()
    assert Entry.objects.filter(action="note.change", object_id="ours").count() == 1
    browser.post("/notes/experiment/ours/", {"note": "<script>1</script>\nLine"})
    assert Entry.objects.filter(action="note.change").count() == 1


@pytest.mark.medium
def test_readers_see_tags_and_notes_and_change_none(client, viewer, member, kept, api):
    grant_access(kept.dataset, to=viewer)
    api(member).patch("/api/datasets/ours", {"tags": ["prod"], "note": "Read me."}, format="json")
    client.force_login(viewer)
    page = client.get("/datasets/ours/").content.decode()
    assert "prod" in page and "Read me." in page and "Add tag" not in page and "Save the note" not in page
    assert client.post("/tags/dataset/ours/", {"tag": "x"}).status_code == 403
    assert client.post("/notes/dataset/ours/", {"note": "x"}).status_code == 403
    assert api(viewer).patch("/api/datasets/ours", {"note": "x"}, format="json").status_code == 403
    assert client.post("/tags/model/ours/", {"tag": "x"}).status_code == 404
    assert client.post("/tags/user/member/", {"tag": "x"}).status_code == 404


def test_only_tags_of_visible_objects_are_offered(browser, member, stranger, kept):
    belongings(stranger, "hidden").dataset.tags.create(name="secret", name_key="secret")
    kept.dataset.tags.create(name="ours", name_key="ours")
    kept.model.tags.create(name="of-a-model", name_key="of-a-model")
    assert tag_choices(member, Dataset) == ["ours"]
    assert "secret" not in browser.get("/datasets/").content.decode()


def test_tags_go_with_their_object(kept):
    kept.model.tags.create(name="prod", name_key="prod")
    kept.model.latest = None
    kept.model.save()
    kept.model.delete()
    assert not Tag.objects.exists()


@pytest.mark.medium
def test_lists_read_the_tags_of_all_rows_at_once(browser, member, django_assert_max_num_queries):
    for i in range(20):
        thing = belongings(member, f"thing-{i}")
        for obj in (thing.dataset, thing.experiment, thing.model):
            obj.tags.create(name="prod", name_key="prod")
    for _kind, address, _api_address in KINDS:
        with django_assert_max_num_queries(17):
            assert browser.get(address).content.decode().count("?tag=prod") == 20
