"""Writing the audit log: record() for one action, verify() for the whole chain."""

import hashlib
import json
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from .context import current
from .models import Entry

GENESIS = "0" * 64
_LOCK = 0x10A51  # any number that no other PostgreSQL advisory lock of this database uses


def record(action: str, *, user: Any = None, obj: Model | None = None, result: str = "ok", **details: Any) -> Entry:
    """Append one entry; who, from where and in which request come from the current request unless `user` is given."""
    context = current()
    user = user or context.user
    with transaction.atomic():
        _lock()
        last = Entry.objects.order_by("-pk").values_list("hash", flat=True).first() or GENESIS
        entry = Entry(
            at=timezone.now(),
            user=user if getattr(user, "pk", None) else None,
            username=details.pop("username", None) or (user.get_username() if user else ""),
            action=action,
            object_type=obj._meta.model_name or "" if obj else "",
            object_id=str(obj)[:120] if obj else "",
            result=result,
            address=context.address,
            request_id=context.request_id,
            details=details,
            previous=last,
        )
        entry.hash = digest(entry)
        entry.save(force_insert=True)
    return entry


def digest(entry: Entry) -> str:
    """SHA-256 over the previous entry's hash and what this entry says."""
    said = [
        entry.previous, entry.at.isoformat(timespec="microseconds"), entry.username, entry.action, entry.object_type,
        entry.object_id, entry.result, entry.address, entry.request_id, entry.details,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def verify() -> Entry | None:
    """The first entry that doesn't follow from the one before it, or None when the chain holds."""
    previous = GENESIS
    for entry in Entry.objects.order_by("pk").iterator():
        if entry.previous != previous or digest(entry) != entry.hash:
            return entry
        previous = entry.hash
    return None


def _lock() -> None:
    """One writer at a time, so that the chain never forks. SQLite's BEGIN IMMEDIATE already is such a lock."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
