"""What takes back the end of a share, the withdrawal of an invitation and the revocation of a token."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from web.undo import undoes

from . import secrets, services, sharing
from .models import Invitation, Token, User
from .permissions import permission_object


@dataclass(frozen=True)
class PreviousShares:
    """What `restore_shares` needs to share an object as before."""

    kind: str
    name: str
    levels: dict[str, str]


def change_shares(*, user: User, obj: Any, recipients: list[User | Group], level: str) -> PreviousShares:
    """Set what each recipient may do with an object (see `sharing.LEVELS`), and return what they could do before."""
    shared = permission_object(obj)
    levels = {access.who: access.level for access in sharing.access_list(shared) if access.is_share}
    levels_before = {}
    for recipient in recipients:  # by what `sharing.person_or_group` reads
        kind, name = ("group", recipient.name) if isinstance(recipient, Group) else ("person", recipient.get_username())
        levels_before[f"{kind}:{name}"] = levels.get(recipient, "none")
    before = PreviousShares(sharing.kind_of(shared), shared.name, levels_before)
    for recipient in recipients:
        sharing.set_access(user=user, obj=shared, to=recipient, level=level)
    return before


@undoes("share")
def restore_shares(user: User, kind: str, name: str, levels: dict[str, str]) -> str:
    obj = sharing.shared_object(user, kind, name)
    for recipient, level in levels.items():
        sharing.set_access(user=user, obj=obj, to=sharing.person_or_group(recipient), level=level)
    return _("Shared as before.")


@undoes("shares")
@transaction.atomic
def restore_shares_of_several(user: User, shares: list[dict[str, Any]]) -> str:
    for share in shares:
        restore_shares(user, **share)
    return _("Shared as before.")


def describe_invitation(invitation: Invitation) -> dict[str, Any]:
    """Return what `restore_invitation` needs; the secret of the link is not among it, only its hash."""
    return {
        "hash": invitation.hash,
        "note": invitation.note,
        "role": invitation.role,
        "invited_by": invitation.invited_by_id,
        "expires_at": invitation.expires_at.isoformat(),
    }


@undoes("invitation")
def restore_invitation(user: User, expires_at: str, **values: Any) -> str:
    services.restore_invitation(user=user, expires_at=parse_datetime(expires_at), **values)
    return _("The invitation is open again.")


def describe_token(token: Token) -> dict[str, Any]:
    """Return what `restore_token` needs. The secret is not among it, only its hash; nor is the stamp, only a hash of it."""
    return {
        "hash": token.hash,
        "stamp": secrets.digest(token.stamp),
        "name": token.name,
        "scopes": token.scopes,
        "expires_at": token.expires_at.isoformat(),
    }


@undoes("token")
def restore_token(user: User, expires_at: str, **values: Any) -> str:
    services.restore_token(user=user, expires_at=parse_datetime(expires_at), **values)
    return _("The token is valid again.")
