"""Send a message to an address that a person has entered, but never into the network that the server itself stands in.

The address of the host is looked up once, checked, and connected to, so a name cannot mean another machine a moment later.
Redirects are not followed and of the answer only the status is read.
"""

import hashlib
import hmac
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.encoding import iri_to_uri
from django.utils.translation import gettext as _

from web.errors import InvalidError, LorasiteError

TIMEOUT = 5.0  # seconds, for everything from the connection to the status
PORTS = {"https": 443, "http": 80}
HOST = re.compile(r"[0-9a-z._:-]+")
NAT64 = ip_network("64:ff9b::/96")


class DeliveryError(LorasiteError):
    """A message was not accepted; its sentence goes to the owner."""

    code = "not_delivered"


@dataclass(frozen=True)
class Target:
    scheme: str
    host: str  # ASCII
    port: int
    path: str  # with the query

    @property
    def is_listed(self) -> bool:
        """Return whether the administrator allows this host without TLS and in private networks (WEBHOOK_HOSTS)."""
        return any(fnmatchcase(self.host, pattern) for pattern in settings.WEBHOOK_HOSTS)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Return where a webhook goes; raise InvalidError for what is no address of the web, or not allowed here."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        host = ""
    if not HOST.fullmatch(host) or parts.username is not None or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise InvalidError(_("Enter an address such as https://example.org/hooks/lorasite."), field="webhook_url")
    path = iri_to_uri(parts.path or "/") + (f"?{iri_to_uri(parts.query)}" if parts.query else "")
    target = Target(parts.scheme, host, port, path)
    if target.scheme != "https" and not target.is_listed:
        message = _("Use https. For other addresses, ask your administrator to add the host to WEBHOOK_HOSTS.")
        raise InvalidError(message, field="webhook_url")
    return target


def sign(secret: str, body: bytes, at: int) -> str:
    """Return the signature's header: the time, and the HMAC-SHA256 of the time, a dot and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def post(url: str, body: bytes, *, secret: str, delivery: str) -> None:
    """Send a message; raise DeliveryError, OSError or HTTPException unless it was accepted with a status of 2xx."""
    target = parse_url(url)
    headers = {
        "Host": target.host_header,
        "Content-Type": "application/json",
        "User-Agent": f"Lorasite/{settings.VERSION}",
        "Lorasite-Delivery": delivery,
        "Lorasite-Signature": sign(secret, body, int(time.time())),
    }
    with closing(connect(target)) as plain, time_limit(plain):
        status = exchange(target, plain, body, headers)
    if not 200 <= status < 300:
        raise DeliveryError(_("The webhook answered with status %(status)s.") % {"status": status})


def connect(target: Target) -> socket.socket:
    """Connect to the host; raise DeliveryError if it is in a network that only this server can reach."""
    infos = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in infos]
    if not target.is_listed and not all(map(is_public, addresses)):
        message = _("The host of the webhook is in a private network. Your administrator can allow it (WEBHOOK_HOSTS).")
        raise DeliveryError(message)
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((address, target.port), timeout=TIMEOUT)
    return socket.create_connection((addresses[-1], target.port), timeout=TIMEOUT)


def is_public(text: str) -> bool:
    """Return whether an IP address belongs to the internet, also where it wraps an address of IPv4."""
    address: IPv4Address | IPv6Address = ip_address(text)
    if isinstance(address, IPv6Address):
        wrapped = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or wrapped or address
    return address.is_global and not address.is_multicast


def exchange(target: Target, plain: socket.socket, body: bytes, headers: dict[str, str]) -> int:
    """Send the request over an open connection and return the status of the answer."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = plain
    if target.scheme == "https":
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
    with closing(connection):
        connection.request("POST", target.path, body, headers)
        return connection.getresponse().status


@contextmanager
def time_limit(connection: socket.socket) -> Iterator[None]:
    """Break off what is done with a connection after TIMEOUT, and raise TimeoutError then.

    Time limits of single reads would let a host hold the worker for as long as it sends a byte now and then.
    """
    broken_off = threading.Event()

    def break_off() -> None:
        broken_off.set()
        same.shutdown(socket.SHUT_RDWR)

    with closing(connection.dup()) as same:  # TLS takes over the original
        timer = threading.Timer(TIMEOUT, break_off)
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if not broken_off.is_set():
                raise
        finally:
            timer.cancel()
            timer.join()
    if broken_off.is_set():  # also where the answer looks complete, because it ended
        raise TimeoutError
