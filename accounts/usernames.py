"""Names of people: which are allowed, and which are the same to a reader.

Names are compared by `key_of`: compatible forms (NFKC) and case are one, and a letter that looks like a Latin one counts as
that one. The look-alikes are those of Unicode's UTS 39; so is the rule about scripts ("highly restrictive"). Look-alikes
within ASCII (l and 1, O and 0) stay different names, because too many ordinary names differ only there.
"""

import unicodedata
from typing import Any

from confusable_homoglyphs import categories, confusables
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

RESERVED = {"anonymous", "everyone", "me", "mine", "new", "nobody", "system"}  # they mean something else here
OFFICIAL = {"admin", "administrator", "lorasite", "moderator", "root", "security", "support"}
SCRIPTS_THAT_MIX = (
    {"LATIN", "HAN", "HIRAGANA", "KATAKANA"},
    {"LATIN", "HAN", "BOPOMOFO"},
    {"LATIN", "HAN", "HANGUL"},
)
TAKEN = gettext_lazy("This name is taken, or looks like one that is. Choose another.")


def key_of(name: str) -> str:
    """What two names that a reader would take for the same have in common."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(map(_as_latin, folded)).casefold()


def validate(name: str) -> None:
    """For every new name, whoever gives it; that it is free is asked by `alike`."""
    if not name[:1].isalnum():  # `..` would climb in an address, `-x` would be an option of a command
        raise ValidationError(_("Begin the name with a letter or a digit."))
    if key_of(name) in RESERVED:
        raise ValidationError(_("This name is reserved. Choose another."))
    scripts = categories.unique_aliases(name) - {"COMMON", "INHERITED"}
    if len(scripts) > 1 and not any(scripts <= allowed for allowed in SCRIPTS_THAT_MIX):
        raise ValidationError(_("Use letters of one script: letters of different scripts can look the same."))
    if scripts and "LATIN" not in scripts and all(_as_latin(char).isascii() for char in name):
        raise ValidationError(_("This name looks like one in Latin letters. Choose another."))


def refuse_official(name: str) -> None:
    """For names that people choose themselves: `root` or `support` would be believed more than they should be."""
    if key_of(name) in OFFICIAL:
        raise ValidationError(_("This name is for administrators to give. Choose another."))


def alike(people: Any, name: str) -> list[Any]:
    """The accounts of the queryset `people` whose names have the key of `name`.

    Accounts without a stored key are from before there were keys, and collided with an older one then.
    """
    key = key_of(name)
    found = people.filter(Q(username_key=key) | Q(username_key=None)).order_by("pk")
    return [person for person in found if person.username_key or key_of(person.username) == key]


def counted_as(request: Any, credentials: dict[str, Any] | None = None) -> str:
    """The name under which django-axes counts wrong passwords: all spellings that sign in as one account are one."""
    return key_of(str((credentials or {}).get("username") or ""))[:255]


def _as_latin(char: str) -> str:
    if char.isascii():
        return char
    looks_like = [found["c"] for found in confusables.confusables_data.get(char, ())]
    return next((other for other in looks_like if other.isascii() and other.isalnum()), char)
