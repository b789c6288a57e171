"""The page of a person's notifications."""

from typing import Any

import pytest

from accounts.models import User
from audit.models import Entry
from notifications.models import Delivery, Preferences

PAGE = "/account/notifications/"
FORM = {
    "do": "save",
    "mail_events": ["run.failed"],
    "webhook_events": ["run.finished"],
    "webhook_url": "https://example.org/hook",
}


def test_secret_is_shown_once_and_not_stored(client: Any, member: User) -> None:
    client.force_login(member)
    secret = client.post(PAGE, FORM).context["secret"]
    assert len(secret) == 64 and secret not in client.get(PAGE).content.decode()
    assert client.post(PAGE, FORM).status_code == 302, "saving again keeps the secret"
    preferences = Preferences.objects.get()
    assert preferences.webhook_secret == secret and preferences.mail_events == ["run.failed"]
    assert secret not in str(Preferences.objects.values()) + str(Entry.objects.values())


def test_secret_is_replaced(client: Any, member: User) -> None:
    client.force_login(member)
    first = client.post(PAGE, FORM).context["secret"]
    second = client.post(PAGE, {"do": "secret"}).context["secret"]
    assert first != second == Preferences.objects.get().webhook_secret


def test_removed_webhook_takes_its_secret_along(client: Any, member: User) -> None:
    client.force_login(member)
    first = client.post(PAGE, FORM).context["secret"]
    client.post(PAGE, FORM | {"webhook_url": "", "webhook_events": []})
    assert client.post(PAGE, FORM).context["secret"] != first


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "ftp://example.org/", "https://", "https://user:pass@example.org/", "https://a b/",
        "https://example.org:99999/", "https://[::1/", "javascript:alert(1)", "https://" + "a" * 64 + ".org/", "hooks",
    ],
)  # fmt: skip
def test_address_that_is_not_allowed_is_refused_beside_its_field(client: Any, member: User, url: str) -> None:
    client.force_login(member)
    answer = client.post(PAGE, FORM | {"webhook_url": url})
    assert answer.status_code == 400 and answer.context["form"].errors["webhook_url"]
    assert not Preferences.objects.exists()


def test_listed_host_may_be_called_without_tls(client: Any, member: User, settings: Any) -> None:
    settings.WEBHOOK_HOSTS = ["*.internal"]
    client.force_login(member)
    assert client.post(PAGE, FORM | {"webhook_url": "http://hooks.internal:8080/x"}).context["secret"]


def test_test_message_goes_to_every_channel_once_a_minute(client: Any, member: User) -> None:
    client.force_login(member)
    client.post(PAGE, FORM)
    assert client.post(PAGE, {"do": "test"}).status_code == 302
    assert sorted(Delivery.objects.values_list("channel", flat=True)) == ["mail", "webhook"]
    assert client.post(PAGE, {"do": "test"}).status_code == 409 and Delivery.objects.count() == 2
    assert "waiting" in client.get(PAGE).content.decode()


def test_webhook_events_need_an_address(client: Any, member: User) -> None:
    client.force_login(member)
    answer = client.post(PAGE, FORM | {"webhook_url": ""})
    assert answer.status_code == 400 and answer.context["form"].errors["webhook_url"]


def test_changes_are_audited(client: Any, member: User) -> None:
    client.force_login(member)
    for do in ("save", "secret", "test"):
        client.post(PAGE, FORM | {"do": do})
    actions = Entry.objects.filter(username="member").order_by("pk").values_list("action", flat=True)
    assert [action for action in actions if action.startswith("notification")] == [
        "notification.change",
        "notification.secret",
        "notification.test",
    ]
