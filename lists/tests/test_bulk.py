"""Bulk actions: each object by its own permission, and a reason for each that is refused."""

import csv
import io
from typing import Any

import pytest

from accounts.permissions import grant_access, visible
from audit.models import Entry
from datasets_app.models import Dataset
from experiments.models import Experiment, RegisteredModel
from lists.bulk import MOST
from testing.belongings import belongings
from testing.experiments import row
from training.models import Status, Task
from web.csv_lines import csv_line

BULK: dict[str, Any] = {"/bulk/datasets/": Dataset, "/bulk/runs/": Experiment, "/bulk/models/": RegisteredModel}


def said(page: Any) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def names_seen(user: Any, address: str) -> set[str]:
    return set(visible(user, BULK[address].objects.all()).values_list("name", flat=True))


@pytest.mark.medium
@pytest.mark.parametrize("address", BULK)
def test_deletion_says_what_was_refused_and_why_and_is_undone_as_one(browser, member, stranger, address):
    for name in ("one", "two"):
        belongings(member, name)
    grant_access(belongings(stranger, "seen").model, to=member)
    Experiment.objects.filter(owner=member).exclude(name="one").update(version=None)
    Dataset.objects.get(name="one").versions.update(hash="f" * 64)
    names = ["two", "seen", "nothing"]
    done = browser.post(address, {"name": names, "action": "delete"}, follow=True)
    assert said(done)[0] == "1 deleted, 2 not:" and len(said(done)) == 3
    assert names_seen(member, address) == {"one", "seen"} if "models" in address else {"one"}
    token = next(iter(done.context["messages"])).extra_tags
    undone = browser.post("/undo/", {"token": token}, follow=True)
    assert said(undone) == ["two is back."] and "two" in names_seen(member, address)


def test_dataset_that_a_run_uses_is_kept_and_the_reason_names_the_run(browser, member):
    belongings(member, "used")
    page = browser.post("/bulk/datasets/", {"name": "used", "action": "delete"}, follow=True)
    assert said(page) == [
        "0 deleted, 1 not:",
        "used: This dataset is used by used. Nothing was deleted: a run needs its dataset to be reproducible.",
    ]


@pytest.mark.parametrize("address", BULK)
def test_tag_is_added_to_each_and_the_list_stays_as_it_was(browser, member, address):
    for name in ("one", "two"):
        belongings(member, name)
    answer = browser.post(address, {"name": ["one", "two"], "action": "tag", "tag": "prod", "query": "q=o&sort=name"})
    assert answer.url.endswith("?q=o&sort=name")
    assert all(obj.tags.get().name == "prod" for obj in BULK[address].objects.all())
    assert Entry.objects.filter(action="tag.add").count() == 2
    refused = browser.post(address, {"name": ["one"], "action": "tag", "tag": "a b"}, follow=True)
    assert said(refused)[-2] == "0 tagged, 1 not:" and "cannot contain spaces" in said(refused)[-1]


def test_running_runs_are_cancelled_and_ended_ones_refused(browser, member):
    for name in ("waits", "ended"):
        belongings(member, name)
    Task.objects.filter(experiment__name="waits").update(status=Status.PENDING)
    page = browser.post("/bulk/runs/", {"name": ["waits", "ended"], "action": "cancel"}, follow=True)
    assert said(page)[0] == "1 cancelled, 1 not:" and said(page)[1].startswith("ended: ")
    assert Task.objects.get(experiment__name="waits").status == Status.CANCELLED


def test_runs_are_compared_by_a_lean_address(browser, member):
    for name in ("a", "b"):
        row(member, name, accuracy=0.5)
    assert browser.post("/bulk/runs/", {"name": ["a", "b"], "action": "compare", "tag": ""}).url == (
        "/experiments/compare?name=a&name=b"
    )
    too_few = browser.post("/bulk/runs/", {"name": ["a"], "action": "compare"}, follow=True)
    assert said(too_few) == ["Select 2 to 6 runs to compare them."]


@pytest.mark.parametrize("address", BULK)
def test_selected_rows_are_exported_but_no_others(browser, member, stranger, address):
    for name in ("one", "two"):
        belongings(member, name)
    belongings(stranger, "hidden")
    answer = browser.post(address, {"name": ["one", "hidden"], "action": "export"})
    assert answer["Content-Disposition"].endswith('.csv"')
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [line[0] for line in rows[1:]] == ["one"] and "tags" in rows[0] and len(rows[0]) == len(rows[1])


def test_cells_are_no_formulas_and_numbers_stay_numbers():
    assert csv_line(["=1+1", -1.5, None, '=a,"b"']) == '\'=1+1,-1.5,,"\'=a,""b"""\r\n'


@pytest.mark.parametrize("address", BULK)
@pytest.mark.parametrize(
    "form", [{"action": "delete"}, {"action": "explode", "name": "one"}, {"name": [f"n{i}" for i in range(MOST + 1)]}]
)
def test_nothing_selected_too_much_or_an_unknown_action_changes_nothing(browser, member, address, form):
    belongings(member, "one")
    answer = browser.post(address, form, follow=True)
    assert "Nothing was changed" in said(answer)[0] and BULK[address].objects.count() == 1


@pytest.mark.parametrize("address", BULK)
def test_readers_can_export_and_nothing_else(client, viewer, member, address):
    thing = belongings(member, "one")
    for obj in (thing.dataset, thing.experiment, thing.model):
        grant_access(obj, to=viewer)
    client.force_login(viewer)
    assert "one" in client.post(address, {"name": "one", "action": "export"}).content.decode()
    for action in ("tag", "delete"):
        page = client.post(address, {"name": "one", "action": action, "tag": "x"}, follow=True)
        assert ", 1 not:" in said(page)[0]
    assert BULK[address].objects.count() == 1 and not BULK[address].objects.get().tags.exists()


@pytest.mark.parametrize("address", BULK)
def test_several_are_shared_at_once_each_with_its_reason_and_undone_as_one(browser, member, stranger, address):
    for name in ("one", "two"):
        belongings(member, name)
    sent = {"name": ["one", "two", "nothing"], "action": "share", "query": "sort=name"}
    page = browser.post(address, sent).content.decode()
    assert "Share 3 items" in page and 'value="person:stranger"' in page and "sort=name" in page
    done = browser.post(address, sent | {"to": "person:stranger", "access": "view"}, follow=True)
    assert said(done)[0] == "2 shared, 1 not:" and said(done)[1].startswith("nothing: ")
    assert names_seen(stranger, address) == {"one", "two"}
    token = next(iter(done.context["messages"])).extra_tags
    browser.post("/undo/", {"token": token})
    assert names_seen(stranger, address) == set()


def test_only_owners_share_several_and_none_is_given_away(browser, member, stranger, viewer):
    shared = belongings(stranger, "theirs").dataset
    grant_access(shared, to=member, manage=True)
    sent = {"name": "theirs", "action": "share", "to": "person:viewer"}
    assert "Only its owner" in said(browser.post("/bulk/datasets/", sent | {"access": "view"}, follow=True))[1]
    for wrong in ({"access": "owner"}, {"access": "view", "to": "person:nobody"}):
        assert len(said(browser.post("/bulk/datasets/", sent | wrong, follow=True))) == 1
    assert names_seen(viewer, "/bulk/datasets/") == set()


def test_share_page_says_what_the_person_can_share(client, member, admin):
    belongings(member, "one")
    pages = []
    for person in (member, admin):
        client.force_login(person)
        pages.append(client.post("/bulk/datasets/", {"name": "one", "action": "share"}).content.decode())
    assert "You can share only what you own." in pages[0] and "you can share anything" not in pages[0]
    assert "you can share anything" in pages[1] and "only what you own" not in pages[1]


@pytest.mark.medium
def test_bar_offers_a_viewer_changes_only_where_they_manage_something(client: Any, member: Any, viewer: Any) -> None:
    owned = belongings(member)
    client.force_login(viewer)
    for shared, address in (
        (owned.experiment, "/experiments/"),
        (owned.dataset, "/datasets/"),
        (owned.model, "/models/"),
    ):
        grant_access(shared, to=viewer)
        page = client.get(address).content.decode()
        assert 'value="export"' in page and 'value="delete"' not in page and 'value="tag"' not in page
        grant_access(shared, to=viewer, manage=True)
        assert 'value="delete"' in client.get(address).content.decode()
