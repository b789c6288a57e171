"""Record what a person decides about a suspect."""

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from datasets_app.models import Suspect
from web.errors import InvalidError


@transaction.atomic
def decide(*, user: User, suspect: Suspect, label: str | None) -> Suspect:
    """Set the right label of a suspect: its own keeps it, another corrects it, "" drops the row, None undoes the decision."""
    if label and label not in suspect.version.labels:
        raise InvalidError(_("This version has no label “%(label)s”.") % {"label": label[:80]}, field="label")
    suspect.decision = label
    suspect.decided_by = user if label is not None else None
    suspect.save(update_fields=["decision", "decided_by"])
    record("dataset.decide", user=user, obj=suspect.version, row=suspect.row, was=suspect.label, label=label)
    return suspect
