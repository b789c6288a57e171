"""Refuse names that experiments, datasets and registered models may not have."""

from collections.abc import Collection

from django.utils.translation import gettext as _

from engine.names import NAME_RULE, is_valid_name
from web.errors import InvalidError


def require_valid_name(name: str, *, field: str, reserved: Collection[str]) -> None:
    """Raise InvalidError unless a new object may have this name.

    `field` is the field of the form or the API at fault; `reserved` are addresses of pages, in lower case.
    """
    if not is_valid_name(name):
        raise InvalidError(_(NAME_RULE), field=field)
    if name.lower() in reserved:
        message = _("The name “%(name)s” is reserved for a page. Choose another.")
        raise InvalidError(message % {"name": name}, field=field)
