"""What a message says, as an e-mail and as the JSON of a webhook. Neither contains rows of data or texts of errors."""

import json
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _

from .models import Delivery, Event


def subject_of(delivery: Delivery) -> str:
    subjects = {
        Event.FINISHED: _("Run finished: %(name)s"),
        Event.NOT_LEARNED: _("Run finished but did not learn: %(name)s"),
        Event.FAILED: _("Run failed: %(name)s"),
    }
    subject = subjects.get(delivery.event, _("Test message from Lorasite"))  # type: ignore[call-overload]
    return str(subject % delivery.facts)


def absolute(path: str) -> str:
    return f"{settings.SITE_URL}{path}"


def email(delivery: Delivery) -> EmailMessage:
    """Return the e-mail, with a Message-ID of its own: programs show it once, should it arrive twice."""
    context = {
        "subject": subject_of(delivery),
        "facts": delivery.facts,
        "address": absolute(delivery.facts.get("path", "/")),
        "settings_address": absolute(reverse("notifications:settings")),
    }
    return EmailMessage(
        context["subject"],
        render_to_string("notifications/mail.txt", context),
        to=[delivery.owner.email],
        headers={"Message-ID": f"<{delivery.pk}@lorasite>", "Auto-Submitted": "auto-generated"},
    )


def webhook_body(delivery: Delivery) -> bytes:
    content: dict[str, Any] = {
        "id": str(delivery.pk),
        "event": delivery.event,
        "created_at": delivery.created_at.isoformat(),
    }
    if delivery.facts:
        facts = {name: value for name, value in delivery.facts.items() if name != "path"}
        content["run"] = facts | {"url": absolute(delivery.facts["path"])}
    return json.dumps(content, ensure_ascii=False).encode()
