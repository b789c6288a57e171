"""Usernames: which are allowed, and which look the same to a reader.

Names are compared by `key_of`, which ignores case and compatibility forms (NFKC) and replaces a letter that looks like a Latin
one by that one. The look-alikes and the rule about scripts ("highly restrictive") are those of Unicode's UTS 39. Look-alikes
within ASCII (l and 1, O and 0) stay different, because too many ordinary names differ only there.
"""

import unicodedata
from typing import Any, TypeVar

from confusable_homoglyphs import categories, confusables
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

RESERVED = {"anonymous", "everyone", "me", "mine", "new", "nobody", "system"}  # these words mean something else here
OFFICIAL = {"admin", "administrator", "lorasite", "moderator", "root", "security", "support"}
SCRIPTS_THAT_MIX = (
    {"LATIN", "HAN", "HIRAGANA", "KATAKANA"},
    {"LATIN", "HAN", "BOPOMOFO"},
    {"LATIN", "HAN", "HANGUL"},
)
TAKEN = gettext_lazy("This name is taken, or looks like one that is. Choose another.")
U = TypeVar("U", bound=Model)


def key_of(name: str) -> str:
    """Return the key of a name; two names that look the same have the same key."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(map(_as_latin, folded)).casefold()


def validate(name: str) -> None:
    """Raise ValidationError unless a new name is allowed. Whether it is free is checked with `alike`."""
    if not name[:1].isalnum():  # `..` means something in an address, and `-x` is an option of a command
        raise ValidationError(_("The name must begin with a letter or a digit."))
    if key_of(name) in RESERVED:
        raise ValidationError(_("This name is reserved. Choose another."))
    scripts = categories.unique_aliases(name) - {"COMMON", "INHERITED"}
    if len(scripts) > 1 and not any(scripts <= allowed for allowed in SCRIPTS_THAT_MIX):
        raise ValidationError(_("Use letters of one script only. Letters of different scripts can look the same."))
    if scripts and "LATIN" not in scripts and all(_as_latin(char).isascii() for char in name):
        raise ValidationError(_("This name looks like one in Latin letters. Choose another."))


def refuse_official(name: str) -> None:
    """Raise ValidationError for a name that people must not choose themselves, such as `support`: others would trust it."""
    if key_of(name) in OFFICIAL:
        raise ValidationError(_("Only administrators can give this name. Choose another."))


def find_lookalikes(people: QuerySet[U], name: str) -> list[U]:
    """Return the accounts among `people` whose names look like `name`.

    Accounts without a stored key are older than the keys, and looked like another old one then.
    """
    key = key_of(name)
    candidates: Any = people.filter(Q(username_key=key) | Q(username_key=None)).order_by("pk")
    return [person for person in candidates if person.username_key or key_of(person.username) == key]


def name_for_lockout(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """Return the name under which django-axes counts wrong passwords: one for all spellings that sign in as one account."""
    username = (credentials or {}).get("username") or ""
    key = key_of(str(username))
    return key[:255]  # the width of the column in django-axes


def _as_latin(char: str) -> str:
    """Return the ASCII letter or digit that looks like `char`, or `char` itself if there is none."""
    if char.isascii():
        return char
    for entry in confusables.confusables_data.get(char, ()):
        look_alike: str = entry["c"]
        if look_alike.isascii() and look_alike.isalnum():
            return look_alike
    return char
