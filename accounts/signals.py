"""What people do to accounts and to what is shared; audit, which stands above this app, listens and records it."""

from typing import Any

from django.db.models import Model
from django.dispatch import Signal

happened = Signal()  # sender: the object's class; action, user, obj, result, details


def announce(action: str, *, obj: Model, user: Any = None, result: str = "ok", **details: Any) -> None:
    """`user` is who did it; None: whoever sent the request."""
    happened.send(type(obj), action=action, user=user, obj=obj, result=result, details=details)
