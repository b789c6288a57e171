"""Refuse names that experiments, datasets and registered models may not have, and find those that count as the same."""

from collections.abc import Collection

from django.db.models import Q
from django.utils.translation import gettext as _

from engine.names import explain_refusal, name_key, nearest_name
from web.errors import InvalidError
from web.sentences import translate


def require_valid_name(name: str, *, field: str, reserved: Collection[str]) -> None:
    """Raise InvalidError unless a new object may have this name.

    `field` is the field of the form or the API at fault; `reserved` are addresses of pages, in lower case.
    """
    if refusal := explain_refusal(name):
        raise InvalidError(translate(refusal), field=field, suggestion=nearest_name(name))
    if name_key(name) in reserved:
        message = _("The name “%(name)s” is reserved for a page. Choose another.")
        raise InvalidError(message % {"name": name}, field=field)


def named_alike(name: str) -> Q:
    """Return the condition for rows whose name differs from `name` in case, width or compatibility forms at most.

    Names without a key are of an earlier release, and ASCII.
    """
    key = name_key(name).replace("\x00", "")  # PostgreSQL refuses a query with a NUL
    return Q(name_key=key) | Q(name_key=None, name__iexact=key)
