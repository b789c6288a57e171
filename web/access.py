"""Permission checks that need no object: the administrator role, and who may read metrics."""

from collections.abc import Mapping
from hmac import compare_digest
from ipaddress import ip_address

from django.conf import settings

from web.errors import NotAllowedError


def require_admin(user: object) -> None:
    """Raise NotAllowed unless `user` (accounts.models.User) is an administrator."""
    if not getattr(user, "is_admin", False):
        raise NotAllowedError


def may_read_metrics(environ: Mapping[str, object]) -> bool:
    """Return whether a request may read the metrics; `environ` is its WSGI environment.

    With METRICS_TOKEN set, the request must carry it as a bearer token. Otherwise only requests from this machine are
    allowed.
    """
    if settings.METRICS_TOKEN:
        authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
        return compare_digest(authorization.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())
    # Behind a local proxy every client connects from this machine, so check the requested host and the headers that
    # proxies add, too.
    proxy_headers = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")
    if any(header in environ for header in proxy_headers):
        return False
    host = str(environ.get("HTTP_HOST", "")).rpartition("@")[2]
    hostname = host if host.endswith("]") else host.rpartition(":")[0] or host
    return is_loopback(str(environ.get("REMOTE_ADDR", ""))) and is_loopback(hostname)


def is_loopback(name: str) -> bool:
    """Return whether a host name or an address, also in brackets, is this machine's loopback."""
    if name == "localhost":
        return True
    address = name.strip("[]")  # an IPv6 address stands in brackets in a Host header
    try:
        return ip_address(address).is_loopback
    except ValueError:  # the name of another host
        return False
