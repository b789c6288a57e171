"""How much one person may use. Each app says what it counts; the limits are the installation's unless an admin set others."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from web.disk import require_room
from web.errors import Conflict

from .models import User

Count = Callable[[User], int]
_counts: dict[str, list[Count]] = {"running": [], "queued": [], "storage": []}  # runs, runs, bytes
MIB = 2**20


class QuotaReached(Conflict):
    code = "quota_reached"


def counts(kind: str) -> Callable[[Count], Count]:
    """Names a function that counts part of what a person uses: `running` and `queued` runs, `storage` in bytes."""

    def add(count: Count) -> Count:
        _counts[kind].append(count)
        return count

    return add


def used(user: User, kind: str) -> int:
    return sum(count(user) for count in _counts[kind])


def limit(user: User, kind: str) -> int | None:
    """Runs, or bytes of storage; None: as much as one likes."""
    own = {"running": user.running_limit, "queued": user.queued_limit, "storage": user.storage_limit_mb}[kind]
    found = settings.QUOTAS[kind] if own is None else own
    if found is None:
        return None
    return found * MIB if kind == "storage" else found


def has_room(user: User, kind: str) -> bool:
    """Whether one more run, or any further byte, is within the limit."""
    most = limit(user, kind)
    return most is None or used(user, kind) < most


def require_queue(user: User) -> None:
    if not has_room(user, "queued"):
        message = _(
            "Your waiting runs: %(used)s; your limit: %(limit)s. Nothing was queued; "
            "cancel one, wait until one starts, or ask an administrator for more."
        )
        facts: dict[str, Any] = {"used": used(user, "queued"), "limit": limit(user, "queued")}
        raise QuotaReached(message % facts, quota="queued", **facts)


def require_storage(user: User, more: int = 0) -> None:
    """Room for `more` bytes, on the disk and within the person's limit."""
    require_room(more)
    most = limit(user, "storage")
    if most is None or ((taken := used(user, "storage")) + more <= most and taken < most):
        return
    message = _(
        "Your data and results take %(used)s MiB, this needs %(more)s MiB more, and %(limit)s MiB is your limit. "
        "Nothing was stored; delete a dataset or an experiment, or ask an administrator for more."
    )
    facts: dict[str, Any] = {"used": -(-taken // MIB), "more": -(-more // MIB), "limit": most // MIB}
    raise QuotaReached(message % facts, quota="storage", **facts)
