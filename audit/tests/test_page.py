"""The audit page, its CSV, the command and the API: for admins, filtered the same way."""

import csv
import re
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Entry
from audit.services import record
from audit.words import ACTIONS
from testing.belongings import belongings


@pytest.fixture
def log(member: Any, stranger: Any) -> None:
    """Three entries: two of member's (one in 2020), one of stranger's."""
    record("task.submit", user=member, obj=member, experiment="=HYPERLINK(1)")
    record("dataset.store", user=stranger, obj=stranger)
    old = record("task.cancel", user=member)
    Entry._base_manager.filter(pk=old.pk).update(at=datetime(2020, 5, 4, 12, tzinfo=UTC))


@pytest.fixture
def browser(client: Any, admin: Any) -> Any:
    client.force_login(admin)
    Entry._base_manager.all().delete()  # the sign-in itself
    return client


FILTERS = [
    ({}, ["task.cancel", "dataset.store", "task.submit"]),
    ({"user": "member"}, ["task.cancel", "task.submit"]),
    ({"action": "task."}, ["task.cancel", "task.submit"]),
    ({"q": "STRANGER"}, ["dataset.store"]),
    ({"until": "2020-05-04"}, ["task.cancel"]),
    ({"until": "2020-05-04T11:59"}, []),
    ({"since": "2020-05-05"}, ["dataset.store", "task.submit"]),
    ({"since": "2020-05-05T08:00:00+19:18"}, ["dataset.store", "task.submit"]),
    (
        {"since": "0001-01-01T00:00:00+23:00", "until": "9999-12-31T23:00:00-23:00"},
        ["task.cancel", "dataset.store", "task.submit"],
    ),
    ({"user": "member", "since": "2021-01-01", "action": "task"}, ["task.submit"]),
    ({"user": "nobody"}, []),
]


@pytest.mark.parametrize(("query", "actions"), FILTERS)
def test_page_filters(browser: Any, log: None, query: dict[str, str], actions: list[str]) -> None:
    answer = browser.get("/audit/", query)
    assert [entry.action for entry in answer.context["page"]] == actions


@pytest.mark.parametrize(("query", "actions"), FILTERS)
def test_api_filters(api: Callable[..., Any], admin: Any, log: None, query: dict[str, str], actions: list[str]) -> None:
    answer = api(admin).get("/api/audit/logs", query)
    assert [entry["action"] for entry in answer.json()["results"]] == actions


def test_only_admins_see_it(client: Any, api: Callable[..., Any], member: Any, viewer: Any) -> None:
    assert client.get("/audit/").status_code == 302
    for person in (member, viewer):
        client.force_login(person)
        assert client.get("/audit/").status_code == client.get("/audit/export/").status_code == 403
        assert api(person).get("/api/audit/logs").status_code == 403
    assert not Entry.objects.filter(action="audit.export").exists()


def test_wrong_date_is_shown_next_to_its_field(browser: Any, log: None) -> None:
    answer = browser.get("/audit/", {"since": "yesterday"})
    assert answer.status_code == 400 and list(answer.context["form"].errors) == ["since"]
    assert browser.get("/audit/export/", {"since": "yesterday"}).status_code == 400


def test_long_log_comes_in_pages_that_keep_the_filter(browser: Any, member: Any) -> None:
    for n in range(55):
        record("task.submit", user=member, n=n)
    first = browser.get("/audit/", {"user": "member"})
    assert len(first.context["page"]) == 50 and "user=member&amp;page=2" in first.content.decode()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        second = browser.get("/audit/", {"user": "member", "page": "2"})
    assert len(second.context["page"]) == 5
    assert not any("details" in q["sql"] and "LIMIT" not in q["sql"] for q in queries), "reads more than its page"


def test_page_shows_the_verdict_on_request(browser: Any, member: Any) -> None:
    entries = [record("task.submit", user=member) for _ in range(3)]
    assert "chain is intact" not in browser.get("/audit/").content.decode()
    page = browser.get("/audit/", {"verify": "1"}).content.decode()
    assert "The chain is intact (3 entries)" in page and entries[-1].hash in page
    Entry._base_manager.filter(pk=entries[1].pk).update(action="task.cancel")
    page = browser.get("/audit/", {"verify": "1"}).content.decode()
    assert f"The chain is broken: entry {entries[1].pk} of" in page


def test_csv_holds_what_the_filter_shows_and_is_audited(browser: Any, log: None) -> None:
    answer = browser.get("/audit/export/", {"action": "task.submit"})
    assert answer.streaming and answer["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(StringIO(answer.getvalue().decode())))
    assert [row["action"] for row in rows] == ["task.submit"]
    assert rows[0]["hash"] == Entry.objects.get(action="task.submit").hash
    entry = Entry.objects.get(action="audit.export")
    assert (entry.username, entry.details) == ("admin", {"filters": {"action": "task.submit"}})


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_cell_is_never_a_formula(browser: Any, start: str) -> None:
    record("user.login", result="refused", username=f"{start}HYPERLINK('http://x')")
    rows = csv.DictReader(StringIO(browser.get("/audit/export/", {"action": "user"}).getvalue().decode(), newline=""))
    assert [row["username"] for row in rows] == [f"'{start}HYPERLINK('http://x')"]


def test_command_exports_the_same_and_is_audited(log: None) -> None:
    out = StringIO()
    call_command("audit", "export", user="member", stdout=out)
    out.seek(0)
    assert [row["action"] for row in csv.DictReader(out)] == ["task.cancel", "task.submit"]
    assert Entry.objects.filter(action="audit.export").count() == 1
    with pytest.raises(CommandError, match="Write a date"):
        call_command("audit", "export", since="yesterday")


def test_page_says_actions_in_words_and_leads_to_their_objects(browser: Any, member: Any) -> None:
    mine = belongings(member)
    Entry._base_manager.all().delete()
    for action, obj in (
        ("dataset.store", mine.version),
        ("task.submit", mine.task),
        ("share", mine.model),
        ("user.join", member),
    ):
        record(action, user=member, obj=obj)
    record("odd.action", user=member)
    page = browser.get("/audit/").content.decode()
    links = re.findall(r'<a href="([^"]+)">(?:mine|mine@1|member)</a>', page)
    assert links == ["/people/member/", "/models/mine/", "/experiments/mine/", "/datasets/mine/"]
    assert '<td class="action" title="task.submit">Started a run</td>' in page and ">odd.action</td>" in page
    assert "開始訓練" in browser.get("/audit/", headers={"Accept-Language": "zh-Hant"}).content.decode()


def test_every_action_has_words() -> None:
    root = Path(settings.BASE_DIR)
    apps = (
        "accounts",
        "audit",
        "datasets_app",
        "experiments",
        "inference",
        "lists",
        "monitoring",
        "notifications",
        "training",
    )
    sources = [path for app in apps for path in (root / app).rglob("*.py") if "tests" not in path.parts]
    recorded = {
        name for path in sources for name in re.findall(r'\brecord\(\s*"([\w.]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(recorded) > 40 and recorded - ACTIONS.keys() == set()
