"""What every view asks of a request: who sent it, is it still fresh, does it hold what nobody knows."""

import hashlib
from ipaddress import IPv6Network, ip_address
from typing import Any

from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request

from web.errors import Invalid


class Text(serializers.CharField):
    """A string; DRF's own field would take the number 0 for one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Key(serializers.UUIDField):
    """A UUID as a string; DRF's own field would take `false` for one."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


def whole_number(text: str) -> int | None:
    """The number that plain digits say, or None. Python reads no more than 4,300 digits, a database no more than 18."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def address_of(request: Any) -> str | None:
    """The caller's address in the one form that every database gives back unchanged, so that an entry's hash holds."""
    try:
        found = ip_address(request.META.get("REMOTE_ADDR", "").partition("%")[0])
    except ValueError:  # a Unix socket has none
        return None
    return str(getattr(found, "ipv4_mapped", None) or found)


def network_of(request: Any) -> str | None:
    """Under what a caller is counted: the address, of IPv6 its /64, because a caller has all addresses of one."""
    address = address_of(request)
    if address is None or ":" not in address:
        return address
    return str(IPv6Network((address, 64), strict=False).network_address)


def tag_of(*facts: Any) -> str:
    """An ETag from what an answer hangs on, without making the answer."""
    said = repr((get_language(), *facts)).encode()
    return f'"{hashlib.sha256(said).hexdigest()[:32]}"'


def unchanged(request: Request, tag: str) -> HttpResponse | None:
    """304 where the caller has the answer of this tag already, else None."""
    found: HttpResponse | None = get_conditional_response(request._request, etag=tag)
    if found is not None:
        found["ETag"] = tag
    return found


def refuse_unknown(data: Any, serializer: Any) -> None:
    """Invalid for a field that the serializer has not: a misspelt one must not be taken for one left out."""
    if isinstance(data, dict) and (unknown := sorted(data.keys() - serializer().fields.keys())):
        known = ", ".join(serializer().fields)
        raise Invalid(_("Unknown field; known are: %(known)s.") % {"known": known}, field=str(unknown[0])[:80])
