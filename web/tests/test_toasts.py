"""Messages reach the page that somebody looks at, be it whole or a part that htmx asked for."""

from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.models import User
from testing.belongings import belongings
from web.middleware import ToastMiddleware

pytestmark = pytest.mark.django_db


class Messages(list[Any]):
    used = False


def toasts_after(response: HttpResponse, **headers: str) -> str:
    """Return the body of a response that passed the middleware while one message waited."""
    request: Any = RequestFactory().get("/", headers=headers)
    request._messages = Messages(
        [type("Message", (), {"level_tag": "success", "extra_tags": "", "__str__": lambda self: "Saved."})()]
    )
    assert list(get_messages(request))
    return ToastMiddleware(lambda _request: response)(request).content.decode()  # type: ignore[union-attr]


def test_part_of_a_page_brings_messages_along() -> None:
    body = toasts_after(HttpResponse("<p>part</p>"), HX_Request="true")
    assert body.startswith("<p>part</p>") and 'hx-swap-oob="beforeend:#toasts"' in body and "Saved." in body


def test_whole_pages_errors_and_other_files_stay_as_they_are() -> None:
    assert toasts_after(HttpResponse("<p>page</p>")) == "<p>page</p>"
    assert toasts_after(HttpResponse("no", status=409), HX_Request="true") == "no"
    assert toasts_after(HttpResponse("{}", content_type="application/json"), HX_Request="true") == "{}"


def test_page_shows_messages_as_a_block_that_needs_no_script(client: Any, member: User) -> None:
    belongings(member)
    client.force_login(member)
    page = client.post("/models/mine/alias/", {"alias": "champion"}, follow=True).content.decode()
    block = page[page.index('id="toasts"') : page.index("<header", page.index('id="toasts"'))]
    assert "@champion is version 1 now." in block and 'action="/undo/"' in block
    assert "@champion is version" not in client.get("/models/mine/").content.decode()
