"""Checks that need no object: the role of administrator, and who may read metrics."""

from collections.abc import Mapping
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any

from django.conf import settings

from web.errors import NotAllowed


def require_admin(user: Any) -> None:
    """Raise NotAllowed unless `user` (accounts.models.User) is an administrator."""
    if not user.is_admin:
        raise NotAllowed


def may_read_metrics(environ: Mapping[str, object]) -> bool:
    """Whoever carries METRICS_TOKEN; where none is set, this machine, asked by its own name and through no proxy.

    `environ` is the request's, as WSGI has it. Behind a proxy every caller comes from this machine, so the name that was
    asked for and the headers that proxies add are looked at too.
    """
    if settings.METRICS_TOKEN:
        given = str(environ.get("HTTP_AUTHORIZATION", ""))
        return compare_digest(given.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())
    forwarded = any(
        name in environ for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")
    )
    host = str(environ.get("HTTP_HOST", "")).rpartition("@")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return not forwarded and is_loopback(str(environ.get("REMOTE_ADDR", ""))) and is_loopback(name)


def is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
