"""The audit log: record() adds an entry, verify() checks the whole chain, export() returns entries to take away."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from .context import current_context
from .models import Entry
from .selectors import FILTERS, search

GENESIS = "0" * 64
_LOCK = 0x10A51  # an arbitrary number, unlike those of other PostgreSQL advisory locks in this database


def record(
    action: str, *, user: AbstractBaseUser | None = None, obj: Model | None = None, result: str = "ok", **details: Any
) -> Entry:
    """Append an entry; user, address and request ID come from the current request, unless `user` is given.

    Call it last in the transaction of the action, because other writers of entries wait until that transaction ends.
    """
    context = current_context.get()
    request_user = getattr(context.request, "user", None)
    if user is None and request_user is not None and request_user.is_authenticated:
        user = request_user
    with transaction.atomic(savepoint=False):  # if the entry can't be written, the action is rolled back
        if connection.vendor == "postgresql":
            # One transaction at a time, so that the chain never forks. SQLite's BEGIN IMMEDIATE ensures that already.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        entry = Entry(
            at=timezone.now(),
            person=getattr(user, "pk", None),
            username=details.pop("username", None) or (user.get_username() if user else ""),
            action=action,
            object_type=obj._meta.model_name or "" if obj else "",
            object_id=str(obj)[:120] if obj else "",
            result=result,
            address=context.address,
            request_id=context.request_id,
            details=details,
            previous=chain_head(),
        )
        entry.hash = digest(entry)
        entry.save(force_insert=True)
    return entry


def digest(entry: Entry) -> str:
    """Return the SHA-256 of the previous entry's hash and the content of this entry."""
    content = [
        entry.previous,
        entry.at.isoformat(timespec="microseconds"),
        entry.username,
        entry.action,
        entry.object_type,
        entry.object_id,
        entry.result,
        entry.address,
        entry.request_id,
        entry.details,
    ]
    if entry.person is not None:  # entries that are older than this column keep their hash
        content.append(entry.person)
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def export(query: Mapping[str, str]) -> QuerySet[Entry]:
    """Return the entries that match `query` (see selectors.search), and record the export."""
    entries = search(query)
    record("audit.export", filters={name: query[name] for name in FILTERS if query.get(name)})
    return entries


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of checking the chain; `head` is the hash of the last entry, to be noted down elsewhere."""

    entries: int
    head: str
    broken: Entry | None = None  # the first entry whose hash does not match the one before it
    head_missing: bool = False  # a head noted down earlier is gone: the end of the chain was cut off or rewritten

    @property
    def holds(self) -> bool:
        return self.broken is None and not self.head_missing


def verify(published: str = "") -> Verdict:
    """Check every entry; with `published`, a head noted down earlier, also check that it is still in the chain."""
    previous = GENESIS
    count = 0
    seen = not published
    for entry in Entry.objects.order_by("pk").iterator():
        if entry.previous != previous or digest(entry) != entry.hash:
            return Verdict(count, previous, entry, not seen)
        previous = entry.hash
        count += 1
        seen = seen or previous == published
    return Verdict(count, previous, None, not seen)


def chain_head() -> str:
    """Return the newest entry's hash. Note it down where nobody with write access to the database can change it."""
    return Entry.objects.order_by("-pk").values_list("hash", flat=True).first() or GENESIS
