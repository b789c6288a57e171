"""What people want to be told of, and the messages to them as tasks of the queue: their rows are the outbox."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from work.models import Work

from .wording import MESSAGES

RETRY_AFTER = tuple(timedelta(seconds=seconds) for seconds in (10, 60, 300, 1800, 7200))


class Event(models.TextChoices):
    FINISHED = "run.finished", _("a run finished")
    NOT_LEARNED = "run.did_not_learn", _("a run finished but did not learn")
    FAILED = "run.failed", _("a run failed")


TEST = "test"  # the event of a message that somebody asks for to try the settings


class Channel(models.TextChoices):
    MAIL = "mail", _("e-mail")
    WEBHOOK = "webhook", _("webhook")


def usual_mail_events() -> list[str]:
    return [Event.NOT_LEARNED, Event.FAILED]


class Preferences(models.Model):
    """Which events a person is told of, and how. Somebody without a row has the defaults."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="notification_preferences"
    )
    mail_events = models.JSONField(default=usual_mail_events)
    webhook_events = models.JSONField(default=list)
    webhook_url = models.CharField(max_length=500, blank=True)
    webhook_salt = models.CharField(max_length=32, blank=True)
    language = models.CharField(max_length=10, default="en")  # of the page on which they were last saved

    def __str__(self) -> str:
        return self.user.get_username()

    @property
    def webhook_secret(self) -> str:
        """Return the key of the signatures. It depends on SECRET_KEY, too: a copy of the database does not reveal it."""
        salt = "notifications.webhook"
        return salted_hmac(salt, f"{self.user_id}:{self.webhook_salt}", algorithm="sha256").hexdigest()


class Notice(models.Model):
    """What the site itself tells a person: a run of theirs ended. Nobody else sees it."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices")
    event = models.CharField(max_length=20, choices=Event.choices)
    key = models.CharField(max_length=120, unique=True)  # what happened: nobody is told twice
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["person", "read_at"], name="notices_of_a_person")]

    def __str__(self) -> str:
        return f"{self.event} ({self.person})"


class Delivery(Work):
    """One message to one person over one channel."""

    passing = True  # its owner's alone: never shared, never handed over

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=10, choices=Channel.choices)
    event = models.CharField(max_length=20)
    key = models.CharField(max_length=120, unique=True)  # what happened, and the channel: nobody is told twice
    facts = models.JSONField(default=dict)
    not_before = models.DateTimeField(null=True)  # of the next try

    queue = models.Value("data")  # so that no message waits behind a training run
    startable = Work.startable & (models.Q(not_before=None) | models.Q(not_before__lte=Now()))
    job = "notifications.jobs.run"  # waits in Redis by this name, also across releases
    messages = MESSAGES

    def __str__(self) -> str:
        return f"{self.event} ({self.channel}, {self.status})"

    def within_limit(self) -> bool:
        return self.not_before is None or self.not_before <= timezone.now()

    @property
    def pause(self) -> timedelta | None:
        """How long to wait before the next try; None if there is none."""
        return RETRY_AFTER[self.attempt - 1] if self.attempt <= len(RETRY_AFTER) else None
