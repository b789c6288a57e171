"""The function that RQ calls for a message: send it, and try again later if it was not accepted."""

import http.client
import smtplib
import socket

from django.db.models.functions import Now
from django.utils.translation import gettext as _
from django.utils.translation import override

from web.errors import LorasiteError
from work.models import Status
from work.running import StopSignal, TaskRunner, end_attempt, end_failed, put_back

from . import messages, webhooks
from .models import Channel, Delivery, Preferences
from .services import preferences_of


def run(task_id: str) -> None:
    """Send one message. RQ calls this by its dotted name."""
    DeliveryRunner().run(task_id)


class DeliveryRunner(TaskRunner[Delivery, str]):
    """Send a message; the outcome says why it was not accepted, and is empty if it was."""

    model = Delivery

    def perform(self, task: Delivery, stop: StopSignal) -> str:
        preferences = preferences_of(task.owner)
        with override(preferences.language):
            try:
                send(task, preferences)
            except LorasiteError as error:
                return str(error)
            except TimeoutError:
                return _("There was no answer in time.")
            except socket.gaierror:
                return _("The host was not found.")
            except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
                return _("The connection failed: %(error)s.") % {"error": type(error).__name__}
        return ""

    def finish(self, task: Delivery, outcome: str) -> None:
        error = {"code": "not_delivered", "message": outcome, "kept": "", "next": ""}
        if not outcome:
            end_attempt(task, Status.SUCCESS, deaths=0)
        elif task.pause:
            put_back(task, error=error, not_before=Now() + task.pause)
        else:
            end_failed(task, error)


def send(delivery: Delivery, preferences: Preferences) -> None:
    """Send a message as the person's settings are now, which may have been mended since it was queued."""
    if delivery.channel == Channel.MAIL:
        messages.email(delivery).send()
        return
    body = messages.webhook_body(delivery)
    webhooks.post(preferences.webhook_url, body, secret=preferences.webhook_secret, delivery=str(delivery.pk))
