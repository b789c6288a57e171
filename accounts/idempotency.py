"""Idempotent creation: the same Idempotency-Key of the same user returns the object that the first request created.

It is returned only while the user may see it. An object that was given away since is answered like a deleted one, by 409.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from web.errors import ConflictError, InvalidError

from .models import RepeatKey, User
from .permissions import visible

LONGEST = 200  # characters of a key
KEPT = timedelta(days=30)
HEADER = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": r"^[\x21-\x7e]+$"},
    OpenApiParameter.HEADER,
    description="Repeating a request with the same key returns what the first one created, for 30 days.",
)
M = TypeVar("M", bound=Model)


class KeyUsedError(ConflictError):
    code = "idempotency_key_used"
    message = gettext_lazy("This Idempotency-Key was used for another request; nothing was created. Use a new key.")


class KeyOfOtherModelError(KeyUsedError):
    """The key made an object of another model: an upload's key names a version (a number) or a task (a UUID)."""


def idempotency_key_of(request: Request) -> str | None:
    """Return the request's Idempotency-Key, or None."""
    return parse_idempotency_key(request.headers.get("Idempotency-Key", ""))


def parse_idempotency_key(value: str) -> str | None:
    """Return the value of a header, or of a form's hidden field, as a key; None if it is empty.

    Raise InvalidError if it is too long for the column.
    """
    key = value.strip()
    if len(key) > LONGEST:
        raise InvalidError(_("An Idempotency-Key has at most %d characters.") % LONGEST, field="Idempotency-Key")
    return key.replace("\0", "") or None


def fingerprint(*values: Any) -> str:
    """Return a hash of what is requested; the same key with another fingerprint is refused."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def find_created(user: User, key: str | None, fingerprint: str, queryset: QuerySet[M]) -> M | None:
    """Return the object that the key created, or None. Raise KeyUsedError if it was used for another request.

    Does not wait for a concurrent request. So this only saves slow work; `create_once` decides.
    """
    if not key:
        return None
    repeat_key = RepeatKey.objects.filter(user=user, key=key).first()
    if repeat_key is None:
        return None
    return _created_object(user, repeat_key, fingerprint, queryset)


@transaction.atomic
def create_once(user: User, key: str | None, fingerprint: str, queryset: QuerySet[M], create: Callable[[], M]) -> M:
    """Return what an earlier request with the key created, else call `create` and remember its result.

    Both happen in one transaction: a concurrent request with the same key waits for it, and a crash leaves neither the
    object nor the key.
    """
    if not key:
        return create()
    RepeatKey.objects.filter(user=user, created_at__lt=timezone.now() - KEPT).delete()
    try:
        with transaction.atomic():
            repeat_key = RepeatKey.objects.create(user=user, key=key, fingerprint=fingerprint)
    except IntegrityError:  # an earlier request has the key; a concurrent one holds its row until it has committed
        repeat_key = RepeatKey.objects.select_for_update().get(user=user, key=key)
        return _created_object(user, repeat_key, fingerprint, queryset)
    created = create()
    repeat_key.made = str(created.pk)
    repeat_key.save(update_fields=["made"])
    return created


def _created_object(user: User, repeat_key: RepeatKey, fingerprint: str, queryset: QuerySet[M]) -> M:
    """Return what the key created; raise KeyUsedError for another request, or if the user cannot see the object."""
    if repeat_key.fingerprint != fingerprint:
        raise KeyUsedError(made=repeat_key.made)
    created = None
    if repeat_key.made:
        try:
            created = visible(user, queryset.filter(pk=repeat_key.made)).first()
        except (ValueError, ValidationError):
            raise KeyOfOtherModelError(made=repeat_key.made) from None
    if created is None:  # one message for both cases, so that nobody learns whether it still exists
        message = _(
            "What this Idempotency-Key created was deleted or is no longer shared with you; nothing was created. "
            "Use a new key, or reload the form, to create it again."
        )
        raise KeyUsedError(message)
    return created
