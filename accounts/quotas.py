"""Limits of what one person may use: the defaults of the installation, unless an admin set others for the person."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from web.disk import require_disk_space
from web.errors import ConflictError

from .models import User

Count = Callable[[User], int]
# Each app registers what it counts (see `counts`): runs, runs, bytes.
_counts: dict[str, list[Count]] = {"running": [], "queued": [], "storage": []}
MIB = 2**20


class QuotaReachedError(ConflictError):
    code = "quota_reached"


def counts_usage(kind: str) -> Callable[[Count], Count]:
    """Register a function that counts part of a person's usage: `running` or `queued` runs, or `storage` in bytes."""

    def add(count: Count) -> Count:
        _counts[kind].append(count)
        return count

    return add


def usage_of(user: User, kind: str) -> int:
    """Return the person's usage: a number of runs, or bytes of storage."""
    return sum(count(user) for count in _counts[kind])


def limit_of(user: User, kind: str) -> int | None:
    """Return the person's limit: a number of runs, or bytes of storage; None if there is none."""
    own_limits = {"running": user.running_limit, "queued": user.queued_limit, "storage": user.storage_limit_mb}
    most: int | None = own_limits[kind]
    if most is None:
        most = settings.QUOTAS[kind]
    if most is None or kind != "storage":
        return most
    return most * MIB


def require_queue_quota(user: User) -> None:
    """Raise QuotaReachedError unless the person may queue another run."""
    most = limit_of(user, "queued")
    if most is None:
        return
    queued = usage_of(user, "queued")
    if queued < most:
        return
    message = _(
        "You have reached your limit of queued runs (%(used)s of %(limit)s). Nothing was queued. "
        "Cancel one, wait until one starts, or ask an administrator for a higher limit."
    )
    facts: dict[str, Any] = {"used": queued, "limit": most}
    raise QuotaReachedError(message % facts, quota="queued", **facts)


def require_storage_quota(user: User, more: int = 0) -> None:
    """Raise an error unless `more` bytes fit.

    InsufficientStorageError if the disk has no room for them, QuotaReachedError if they exceed the person's limit.
    """
    require_disk_space(more)
    most = limit_of(user, "storage")
    if most is None:
        return
    in_use = usage_of(user, "storage")
    if in_use < most and in_use + more <= most:
        return
    message = _(
        "Your data and results use %(used)s MiB, this needs another %(more)s MiB, and your limit is %(limit)s MiB. "
        "Nothing was stored. Delete a dataset or an experiment, or ask an administrator for a higher limit."
    )
    # Usage and need are rounded up, so that their sum never looks smaller than the limit.
    facts: dict[str, Any] = {"used": -(-in_use // MIB), "more": -(-more // MIB), "limit": most // MIB}
    raise QuotaReachedError(message % facts, quota="storage", **facts)
