"""What is queued when a run ends, in the transaction that ends it."""

from typing import Any

import pytest
from django.db import transaction

from accounts.models import User
from notifications.models import Channel, Delivery, Event
from notifications.services import announce
from testing.experiments import row
from training.models import Status, Task, WrongStateError

from .conftest import EndRun

pytestmark = pytest.mark.usefixtures("hooked")


@pytest.mark.parametrize(
    ("status", "learned", "event"),
    [
        (Status.SUCCESS, True, Event.FINISHED),
        (Status.SUCCESS, None, Event.FINISHED),
        (Status.SUCCESS, False, Event.NOT_LEARNED),
        (Status.FAILURE, None, Event.FAILED),
    ],
)
def test_owner_is_told_how_a_run_ended(end_run: EndRun, status: Status, learned: bool | None, event: str) -> None:
    delivery = end_run("mine", status, learned=learned)
    assert delivery and (delivery.event, delivery.channel) == (event, Channel.WEBHOOK)


def test_nobody_is_told_of_a_run_that_was_cancelled(end_run: EndRun) -> None:
    assert end_run("mine", Status.CANCELLED) is None


def test_message_has_no_text_of_an_error(end_run: EndRun) -> None:
    error = {"code": "bad_row", "message": "row 7 is broken: my secret text"}
    delivery = end_run("mine", Status.FAILURE, error=error)
    assert delivery and delivery.facts["error"] == "bad_row" and "secret" not in str(delivery.facts)


def test_message_is_undone_with_the_end_of_the_run(end_run: EndRun) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert end_run("mine", Status.SUCCESS)
        raise ZeroDivisionError
    assert not Delivery.objects.exists()


def test_attempt_that_lost_the_run_announces_nothing(member: User) -> None:
    experiment = row(member, "mine", accuracy=0.8)
    Task.objects.filter(experiment=experiment).update(status=Status.STARTED, attempt=2)
    with pytest.raises(WrongStateError):
        experiment.task.move(Status.SUCCESS, frm=[Status.STARTED], attempt=1)
    assert not Delivery.objects.exists()


def test_one_event_is_announced_once(member: User) -> None:
    for _again in range(2):
        announce(owner=member, event=Event.FAILED, key="the same", facts={"path": "/"})
    assert Delivery.objects.count() == 1


def test_closed_account_gets_no_message(end_run: EndRun, member: User) -> None:
    User.objects.filter(pk=member.pk).update(is_active=False)
    assert end_run("mine", Status.FAILURE) is None


def test_mail_is_queued_only_where_it_is_configured(settings: Any, stranger: User) -> None:
    for backend, count in (("dummy", 0), ("locmem", 1)):
        settings.EMAIL_BACKEND = f"django.core.mail.backends.{backend}.EmailBackend"
        announce(owner=stranger, event=Event.FAILED, key=backend, facts={"path": "/"})
        assert Delivery.objects.filter(channel=Channel.MAIL).count() == count
    announce(owner=stranger, event=Event.FINISHED, key="finished", facts={"path": "/"})
    assert Delivery.objects.count() == 1, "that a run simply finished is no mail unless somebody asks for it"
