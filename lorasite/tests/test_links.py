"""Whatever a page offers can be opened by whom it is offered to."""

import re
from collections import deque
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db
LINK = re.compile(r'<a\s[^>]*href="([^"#]+)"')


def open_every_link(client: Client) -> dict[str, int]:
    """Follow the links of all pages from the first one, and return the status of each path; of a query only one is tried."""
    statuses: dict[str, int] = {}
    waiting = deque(["/"])
    while waiting:
        address = waiting.popleft()
        path = urlsplit(address).path
        if path in statuses or path.startswith(("/admin/", "/static/")):
            continue
        answer = client.get(address, follow=True)
        statuses[path] = answer.status_code
        if "text/html" in answer.headers["Content-Type"] and not answer.streaming:
            links = LINK.findall(answer.content.decode())
            waiting += [urljoin(address, unescape(link)) for link in links if not link.startswith(("http", "mailto:"))]
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("person", ["viewer", "reader", "stranger", "owner"])
def test_every_link_of_every_page_can_be_opened(people: Any, arguments: Any, client: Client, person: str) -> None:
    """The reader is a viewer with whom things are shared; the stranger is a member who has nothing yet."""
    client.force_login(people[person])
    statuses = open_every_link(client)
    assert len(statuses) > 8
    assert {path: status for path, status in statuses.items() if status >= 400} == {}
