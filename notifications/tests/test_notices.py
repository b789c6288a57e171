"""The list on the site: how a person's runs ended, until they have seen it."""

import re
from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts.models import User
from notifications import services
from notifications.models import Event, Notice
from notifications.selectors import count_unread
from notifications.services import MOST_NOTICES, announce
from training.models import Status

from .conftest import EndRun


def bell_of(client: Any, path: str = "/account/") -> str:
    page = client.get(path).content.decode()
    return re.search(r'href="/notifications/".*?</a>', page, re.DOTALL)[0]  # type: ignore[index]


def test_end_of_a_run_is_counted_until_its_list_is_opened(client: Any, member: User, end_run: EndRun) -> None:
    client.force_login(member)
    assert "unread" not in bell_of(client)
    end_run("poor", Status.SUCCESS, learned=False)
    end_run("broken", Status.FAILURE, error={"code": "bad_row", "message": "row 7: my secret text"})
    end_run("stopped", Status.CANCELLED)
    assert ">2<" in bell_of(client)
    client.head("/notifications/")
    page = client.get("/notifications/").content.decode()
    assert page.index(">broken<") < page.index(">poor<") and "Did not learn" in page and "stopped" not in page
    assert "secret" not in page and page.count(">new<") == 2
    assert "unread" not in bell_of(client) and ">new<" not in client.get("/notifications/").content.decode()


def test_open_page_counts_what_has_ended_since(client: Any, member: User, end_run: EndRun) -> None:
    client.force_login(member)
    page = client.get("/account/").content.decode()
    assert page.count('<span id="bell-top"></span>') == page.count('<span id="bell-side"></span>') == 1
    end_run("broken", Status.FAILURE, error={"code": "bad_row", "message": "row 7"})
    poll = client.get("/running/").content.decode()
    for place in ("top", "side"):
        assert f'<span id="bell-{place}" hx-swap-oob="true"><b class="badge plain">1<' in poll
    client.get("/notifications/")
    assert '<span id="bell-side" hx-swap-oob="true"></span>' in client.get("/running/").content.decode()


def test_list_is_of_its_person_alone(client: Any, member: User, admin: User, end_run: EndRun) -> None:
    end_run("mine", Status.SUCCESS)
    client.force_login(admin)
    assert "mine" not in client.get("/notifications/").content.decode() and count_unread(member) == 1


def test_one_event_is_listed_once_and_a_test_message_not_at_all(member: User) -> None:
    for _again in range(2):
        announce(owner=member, event=Event.FAILED, key="the same", facts={"path": "/", "name": "run"})
    announce(owner=member, event="test", key="test:1", facts={})
    assert [notice.event for notice in services.read_notices(user=member)] == [Event.FAILED]


def test_list_keeps_the_last_hundred_of_thirty_days(member: User) -> None:
    rows = [Notice(person=member, event=Event.FINISHED, key=str(n), facts={}) for n in range(MOST_NOTICES + 5)]
    Notice.objects.bulk_create(rows)
    Notice.objects.filter(key=str(MOST_NOTICES)).update(created_at=timezone.now() - timedelta(days=31))
    announce(owner=member, event=Event.FINISHED, key="last", facts={})
    keys = [notice.key for notice in member.notices.all()]
    assert len(keys) == MOST_NOTICES and keys[0] == "last" and "4" not in keys and str(MOST_NOTICES) not in keys


def test_list_is_for_people_who_signed_in(client: Any, db: None) -> None:
    assert client.get("/notifications/").status_code == 302
