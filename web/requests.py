"""Request helpers: client address, ETags, unknown-field check, strict serializer fields."""

import hashlib
from ipaddress import IPv6Network, ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request

from web.errors import InvalidError
from web.openai_errors import is_openai

LONGEST_NUMBER = 18  # digits that fit a database's 64-bit integer


class _OnlyStrings(serializers.Field[Any, Any, Any, Any]):
    """Mixin for a field that refuses values of JSON that are no strings."""

    def to_internal_value(self, data: object) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class StrictCharField(_OnlyStrings, serializers.CharField):
    """A string. DRF's own field also accepts numbers."""


class StrictUUIDField(_OnlyStrings, serializers.UUIDField):
    """A UUID as a string. DRF's own field also accepts integers, and so `false`."""


def is_api(request: HttpRequest | Request) -> bool:
    """Return whether a request is one of a program to the API, the part that speaks as OpenAI's included."""
    return request.path.startswith(settings.API_PREFIX) or is_openai(request)


def parse_whole_number(text: str) -> int | None:
    """Return the number that plain ASCII digits spell; None for anything else or more than 18 digits."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_NUMBER:
        return None
    return int(text)


def client_address(request: HttpRequest | Request) -> str | None:
    """Return the client's address in canonical form; None for a Unix socket.

    Databases return the canonical form unchanged, so the hash of an audit entry still matches when it is read back.
    """
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", "").partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def client_network(request: HttpRequest | Request) -> str | None:
    """Return what a client is counted under: its IPv4 address, or its IPv6 /64, because one client owns all of that."""
    address = client_address(request)
    if address is None or ":" not in address:
        return address
    return str(IPv6Network((address, 64), strict=False).network_address)


def compute_etag(*facts: Any) -> str:
    """Return an ETag computed from the facts that determine a response, without rendering it.

    The reader's language is one of them, because responses contain translated sentences.
    """
    fingerprint = repr((get_language(), *facts)).encode()
    digest = hashlib.sha256(fingerprint).hexdigest()[:32]
    return f'"{digest}"'


def not_modified_response(request: Request, tag: str) -> HttpResponse | None:
    """Return a 304 response if the client already has the response with this ETag, else None.

    It carries the ETag, as RFC 9110 (15.4.5) requires.
    """
    response: HttpResponse | None = get_conditional_response(request._request, etag=tag)
    if response is not None:
        response["ETag"] = tag
    return response


def refuse_unknown_fields(data: object, serializer: type[serializers.Serializer[Any]]) -> None:
    """Raise InvalidError if `data` has a field that the serializer lacks: a misspelt field must not count as left out."""
    if not isinstance(data, dict):
        return
    known_fields = serializer().fields
    unknown = sorted(data.keys() - known_fields.keys())
    if unknown:
        message = _("Unknown field. Known fields: %(known)s.") % {"known": ", ".join(known_fields)}
        raise InvalidError(message, field=str(unknown[0])[:80])
