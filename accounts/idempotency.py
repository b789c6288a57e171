"""A creation that may be sent twice: the same Idempotency-Key of the same person gives what the first one made.

It gives that only while the person may see it: what was given away since is answered as what was deleted, by 409.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from web.errors import Conflict, Invalid

from .models import RepeatKey, User
from .permissions import visible

LONGEST = 200
KEPT = timedelta(days=30)
HEADER = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": r"^[\x21-\x7e]+$"},
    OpenApiParameter.HEADER,
    description="The same key with the same request gives what the first one made, however often it is sent, for 30 days.",
)


class KeyUsed(Conflict):
    code = "idempotency_key_used"
    message = gettext_lazy("This Idempotency-Key was used for another request; nothing was made. Use a new key.")


class Once:
    """`made` is what an earlier request with this key made; set it to what this one makes."""

    def __init__(self, made: Any = None) -> None:
        self.made = made


def key_of(request: Request) -> str | None:
    return checked_key(request.headers.get("Idempotency-Key", ""))


def checked_key(given: str) -> str | None:
    """A header's value, or a form's hidden token, as a key; None where it is empty."""
    key = given.strip()
    if len(key) > LONGEST:
        raise Invalid(_("An Idempotency-Key has at most %d characters.") % LONGEST, field="Idempotency-Key")
    return key.replace("\0", "") or None


def fingerprint(*asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def made_before(user: User, key: str | None, mark: str, queryset: QuerySet[Any]) -> Any:
    """What the key made, without waiting for one who is at it: worth asking before slow work."""
    used = RepeatKey.objects.filter(user=user, key=key).first() if key else None
    return _object(user, used, mark, queryset) if used else None


@contextmanager
def once(user: User, key: str | None, mark: str, queryset: QuerySet[Any]) -> Iterator[Once]:
    """One transaction. Whoever comes second with the key waits here for the first, and finds what that one made.

    What is made and that it was made are committed together, so a crash leaves both or neither.
    """
    with transaction.atomic():
        if not key:
            yield Once()
            return
        used, new = _take(user, key, mark)
        found = Once(None if new else _object(user, used, mark, queryset))
        yield found
        if isinstance(found.made, Model) and not used.made:
            used.made = str(found.made.pk)
            used.save(update_fields=["made"])


def _take(user: User, key: str, mark: str) -> tuple[RepeatKey, bool]:
    RepeatKey.objects.filter(user=user, created_at__lt=timezone.now() - KEPT).delete()
    try:
        with transaction.atomic():
            return RepeatKey.objects.create(user=user, key=key, fingerprint=mark), True
    except IntegrityError:
        return RepeatKey.objects.select_for_update().get(user=user, key=key), False


def _object(user: User, used: RepeatKey, mark: str, queryset: QuerySet[Any]) -> Any:
    if used.fingerprint != mark:
        raise KeyUsed(made=used.made)
    try:
        found = visible(user, queryset.filter(pk=used.made)).first() if used.made else None
    except (ValueError, ValidationError):  # an upload's key may name a version (a number) or a task (a UUID)
        raise KeyUsed(made=used.made) from None
    if found is None:  # one sentence for both, so that nobody learns of what is not theirs any more
        message = _(
            "What this Idempotency-Key made was deleted or is not shared with you any more; nothing was made. "
            "Use a new key, or open the form anew, to make it again."
        )
        raise KeyUsed(message)
    return found
