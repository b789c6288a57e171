"""Everything that changes a person's notifications, and `announce`, which queues the messages about an event."""

import uuid
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from web.errors import ConflictError, InvalidError
from web.mail import mail_is_configured
from work import queue

from .models import TEST, Channel, Delivery, Notice, Preferences
from .webhooks import parse_url

KEPT = timedelta(days=30)  # how long a person sees what was sent
MOST_NOTICES = 100  # of a person on the site
TEST_EVERY = timedelta(minutes=1)


def preferences_of(user: User) -> Preferences:
    return Preferences.objects.filter(user=user).first() or Preferences(user=user)


def channels_for(preferences: Preferences, event: str) -> list[Channel]:
    """Return how the person is told of an event; of a test message, by every channel that they have."""
    user = preferences.user
    channels = []
    if mail_is_configured() and user.email and event in (*preferences.mail_events, TEST):
        channels.append(Channel.MAIL)
    if preferences.webhook_url and event in (*preferences.webhook_events, TEST):
        channels.append(Channel.WEBHOOK)
    return channels if user.is_active else []


@transaction.atomic
def announce(*, owner: User, event: str, key: str, facts: dict[str, Any]) -> None:
    """Store the messages about an event with the change that it is about, and send their ids after the commit.

    `key` names what happened: a second call with it adds nothing.
    """
    deliveries = [
        Delivery(owner=owner, channel=channel, event=event, key=f"{key}:{channel}", facts=facts)
        for channel in channels_for(preferences_of(owner), event)
    ]
    Delivery.objects.bulk_create(deliveries, ignore_conflicts=True)
    for delivery in deliveries:
        transaction.on_commit(partial(queue.send, Delivery, delivery.pk), robust=True)
    Delivery.objects.filter(owner=owner, created_at__lt=timezone.now() - KEPT).delete()
    if event != TEST:
        add_notice(person=owner, event=event, key=key, facts=facts)


def add_notice(*, person: User, event: str, key: str, facts: dict[str, Any]) -> None:
    """Add a line to the person's list on the site, and drop what is old or too much."""
    Notice.objects.bulk_create([Notice(person=person, event=event, key=key, facts=facts)], ignore_conflicts=True)
    kept = list(
        person.notices.filter(created_at__gte=timezone.now() - KEPT).values_list("pk", flat=True)[:MOST_NOTICES]
    )
    person.notices.exclude(pk__in=kept).delete()


def read_notices(*, user: User) -> list[Notice]:
    """Return what the site has told the person, newest first, and take it as read."""
    notices = list(user.notices.all())  # with `read_at` as it was before
    user.notices.filter(pk__in=[notice.pk for notice in notices], read_at=None).update(read_at=timezone.now())
    return notices


@transaction.atomic
def save_preferences(
    *, user: User, mail_events: list[str], webhook_events: list[str], webhook_url: str, language: str
) -> Preferences:
    """Store what the person wants. A webhook that is new gets a secret."""
    if webhook_url:
        parse_url(webhook_url)
    elif webhook_events:
        raise InvalidError(_("Enter the address that the webhook is sent to."), field="webhook_url")
    preferences = preferences_of(user)
    preferences.mail_events = mail_events
    preferences.webhook_events = webhook_events
    preferences.webhook_url = webhook_url
    preferences.language = language
    if not webhook_url:
        preferences.webhook_salt = ""
    elif not preferences.webhook_salt:
        preferences.webhook_salt = get_random_string(32)
    preferences.save()
    record("notification.change", user=user, obj=user, mail=mail_events, webhook=webhook_events, url=webhook_url)
    return preferences


@transaction.atomic
def replace_secret(*, user: User) -> Preferences:
    """Give the webhook another secret; messages that wait are signed with it, too."""
    preferences = preferences_of(user)
    if not preferences.webhook_url:
        raise ConflictError(_("Enter the address that the webhook is sent to."))
    preferences.webhook_salt = get_random_string(32)
    preferences.save(update_fields=["webhook_salt"])
    record("notification.secret", user=user, obj=user)
    return preferences


@transaction.atomic
def send_test(*, user: User) -> None:
    """Queue a test message over each of the person's channels, at most one a minute."""
    if not channels_for(preferences_of(user), TEST):
        raise ConflictError(_("There is no e-mail address and no webhook to send a message to."))
    if user.deliveries.filter(event=TEST, created_at__gt=timezone.now() - TEST_EVERY).exists():
        raise ConflictError(_("A test message was sent a moment ago. Try again in a minute."))
    announce(owner=user, event=TEST, key=f"test:{uuid.uuid4()}", facts={})
    record("notification.test", user=user, obj=user)
