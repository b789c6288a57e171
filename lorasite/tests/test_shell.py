"""The frame around every page: navigation, the badge of running runs, and the same around the Django admin."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from datasets_app.checks.report import count_text
from datasets_app.models import Finding, Version
from experiments.results import skipped_sentences
from experiments.verdicts import verdict
from testing.belongings import belongings
from testing.experiments import METRICS
from training.models import Status, Task

pytestmark = pytest.mark.django_db
CURRENT = re.compile(r'<a href="([^"]+)"[^>]* aria-current="page"')


def sidebar(page: str) -> str:
    return page[page.index('id="sidebar"') : page.index("</header>")]


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/", "/"),
        ("/datasets/", "/datasets/"),
        ("/datasets/mine/", "/datasets/"),
        ("/train/", "/train/"),
        ("/runs/{task}/", "/experiments/"),
        ("/experiments/", "/experiments/"),
        ("/experiments/mine/", "/experiments/"),
        ("/models/", "/models/"),
        ("/models/mine/", "/models/"),
        ("/predict/", "/predict/"),
        ("/chat/", "/chat/"),
        ("/people/", "/people/"),
        ("/people/admin/", "/people/"),
        ("/audit/", "/audit/"),
        ("/system/", "/system/"),
    ],
)
def test_page_marks_its_entry_in_the_navigation(client: Any, admin: Any, path: str, entry: str) -> None:
    owned = belongings(admin)
    client.force_login(admin)
    page = client.get(path.format(task=owned.task.pk), follow=True).content.decode()
    assert CURRENT.findall(sidebar(page)) == [entry]


def test_page_outside_the_navigation_marks_nothing(client: Any, member: Any) -> None:
    client.force_login(member)
    for path in ("/account/", "/nowhere/"):
        assert CURRENT.findall(client.get(path).content.decode()) == []


@pytest.mark.medium
def test_navigation_has_only_what_the_person_may_open(client: Any, admin: Any, member: Any, viewer: Any) -> None:
    expected = {
        viewer: {"/", "/datasets/", "/experiments/", "/models/", "/predict/", "/chat/"},
        member: {"/", "/datasets/", "/train/", "/experiments/", "/models/", "/predict/", "/chat/"},
        admin: {
            "/", "/datasets/", "/train/", "/experiments/", "/models/", "/predict/", "/chat/", "/people/", "/audit/", "/system/",
            "/admin/",
        },
    }  # fmt: skip
    for person, addresses in expected.items():
        client.force_login(person)
        links = re.findall(r'<a href="([^"]+)" data-key', client.get("/").content.decode())
        assert set(links) == addresses


def test_bar_of_a_phone_has_five_entries(client: Any, admin: Any, viewer: Any) -> None:
    for person in (admin, viewer):
        client.force_login(person)
        page = client.get("/").content.decode()
        bar = page[page.index('class="bottombar"') :]
        assert bar[: bar.index("</nav>")].count("<li>") == 5


def test_visitor_who_is_not_signed_in_has_no_navigation(client: Any) -> None:
    page = client.get("/login/").content.decode()
    assert 'id="sidebar"' not in page and "bottombar" not in page


def queue_run(owner: User, name: str, status: Status = Status.STARTED) -> Task:
    task = belongings(owner, name).task
    Task.objects.filter(pk=task.pk).update(status=status)
    return task


def test_badge_leads_to_the_only_run_and_otherwise_to_the_overview(client: Any, member: Any, stranger: Any) -> None:
    queue_run(stranger, "theirs")
    client.force_login(member)
    assert "running</a>" not in client.get("/running/").content.decode()
    task = queue_run(member, "first")
    badge = client.get("/running/").content.decode()
    assert f'href="/runs/{task.pk}/">1 running</a>' in badge
    queue_run(member, "second", Status.PENDING)
    assert 'href="/">2 running</a>' in client.get("/running/").content.decode()


def test_part_of_a_page_does_not_pay_for_the_frame(client: Any, member: Any) -> None:
    task = queue_run(member, "first")
    client.force_login(member)
    page = client.get(f"/runs/{task.pk}/").content.decode()
    poll = html.unescape(re.search(r'id="progress"[^>]*hx-get="([^"]+)"', page)[1])  # type: ignore[index]
    with CaptureQueriesContext(connection) as queries:
        part = client.get(poll, headers={"HX-Request": "true"})
    assert b"sidebar" not in part.content
    assert not [query["sql"] for query in queries if "IN ('PENDING', 'STARTED')" in query["sql"]]


@pytest.mark.medium
def test_admin_console_has_landmarks_a_way_back_and_iso_dates(client: Any, admin: Any, member: Any) -> None:
    client.force_login(admin)
    for language in ("en", "zh-hant"):
        page = client.get("/admin/accounts/user/", headers={"Accept-Language": language}).content.decode()
        assert page.count("<main") == page.count("</main>") == 1
        assert re.search(r'<a href="/"[^>]*>← ', page)
        client.get("/admin/")
    User.objects.filter(pk=member.pk).update(last_login="2026-11-26T15:04:00Z")
    page = client.get(f"/admin/accounts/user/{member.pk}/change/", headers={"Accept-Language": "en"}).content.decode()
    assert "p.m." not in page


@pytest.mark.parametrize("language", ["en", "zh-hant"])
def test_large_numbers_have_separators_in_both_languages(client: Any, member: Any, language: str) -> None:
    owned = belongings(member)
    Version.objects.filter(pk=owned.version.pk).update(rows=38158, labels={"bad": 30000, "good": 8158})
    client.force_login(member)
    for path in ("/datasets/", "/datasets/mine/"):
        assert "38,158" in client.get(path, headers={"Accept-Language": language}).content.decode()


def test_sentences_about_large_numbers_have_separators_too() -> None:
    evaluation = METRICS["eval"] | {"confusion_matrix": [[800, 200], [200, 800]]}
    assert "80.0% of 2,000 held-out rows" in verdict(METRICS | {"eval": evaluation})
    assert skipped_sentences({"skipped_by_reason": {"over_long": 1200}})[0].startswith("1,200 conversations were")


def test_no_percent_sign_begins_a_line() -> None:
    for path in (Path(settings.BASE_DIR) / "templates").rglob("*.html"):
        assert not re.search(r"\}\}( |&nbsp;)%", path.read_text(encoding="utf-8")), path


def test_counted_findings_have_plurals() -> None:
    severity = Finding.Severity
    assert [count_text(severity.WARNING, n) for n in (1, 5)] == ["1 warning", "5 warnings"]
    assert count_text(severity.ERROR, 2) == "2 errors" and count_text(severity.INFO, 2) == "2 remarks"


def test_tabs_of_a_dataset_lead_to_its_parts_and_the_verdict_stays_above_them(client: Any, member: Any) -> None:
    belongings(member)
    client.force_login(member)
    address = "/datasets/mine/"
    parts = {"Overview": "labels-title", "Findings": "findings-title", "Rows": 'id="row-1"'}
    for title, part in (parts | {"Versions": "versions-title", "Access": "sharing-title"}).items():
        page = client.get(address).content.decode()
        head, _nav, rest = page.partition('<nav class="tabs"')
        assert "Train on this version" in head and 'class="verdict"' in head
        links = re.findall(r'<a[^>]* href="([^"]+)"([^>]*)>(\w+)', rest[: rest.index("</nav>")])
        address = next(href for href, _current, name in links if name == title).replace("&amp;", "&")
        tab = client.get(address).content.decode()
        assert re.search(rf'aria-current="page">{title}', tab) and part in tab[tab.index('<nav class="tabs"') :]


def test_addresses_of_parts_of_a_dataset_without_tabs_find_the_tab(client: Any, member: Any) -> None:
    belongings(member)
    client.force_login(member)
    page = client.get("/datasets/mine/").content.decode()
    for anchor, tab in (("findings-title", "findings"), ("versions-title", "versions"), ("sharing-title", "access")):
        assert re.search(rf'<a id="{anchor}"[^>]* href="/datasets/mine/\?version=1&amp;tab={tab}"', page)
    assert client.get("/datasets/mine/?tab=nothing").status_code == 200
