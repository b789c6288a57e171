"""Writing the audit log: record() for one action, verify() for the whole chain, export() to take it away."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from .context import current
from .models import Entry
from .selectors import FILTERS, search

GENESIS = "0" * 64
_LOCK = 0x10A51  # any number that no other PostgreSQL advisory lock of this database uses


def record(action: str, *, user: Any = None, obj: Model | None = None, result: str = "ok", **details: Any) -> Entry:
    """Append one entry; who, from where and in which request come from the current request unless `user` is given."""
    context = current()
    user = user or context.user
    with transaction.atomic(savepoint=False):  # an action whose entry can't be written is not done either
        _lock()
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
            previous=head(),
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
    if entry.person is not None:  # entries of before this column was there have none, and keep their hash
        said.append(entry.person)
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def export(query: Mapping[str, str]) -> QuerySet[Entry]:
    """The entries that `query` names (see selectors.search), for taking away; that they were taken is an entry too."""
    found = search(query)
    record("audit.export", filters={name: query[name] for name in FILTERS if query.get(name)})
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading the whole chain showed; `head` is the last entry's hash, which one may note down elsewhere."""

    entries: int
    head: str
    broken: Entry | None = None  # the first entry that doesn't follow from the one before it
    head_missing: bool = False  # a head noted down earlier is in the chain no more: its tail was cut or rewritten

    @property
    def holds(self) -> bool:
        return self.broken is None and not self.head_missing


def verify(published: str = "") -> Verdict:
    """Read every entry; with `published`, the hash of some entry noted down earlier, see that it is still there."""
    previous, count, seen = GENESIS, 0, not published
    for entry in Entry.objects.order_by("pk").iterator():
        if entry.previous != previous or digest(entry) != entry.hash:
            return Verdict(count, previous, entry, not seen)
        previous, count = entry.hash, count + 1
        seen = seen or previous == published
    return Verdict(count, previous, None, not seen)


def head() -> str:
    """The newest entry's hash, to be noted down where nobody who can write to the database can write."""
    return Entry.objects.order_by("-pk").values_list("hash", flat=True).first() or GENESIS


def _lock() -> None:
    """One writer at a time, so that the chain never forks. SQLite's BEGIN IMMEDIATE already is such a lock.

    It is held until the transaction of the action ends, so `record` comes last in it.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
