"""Everything that changes an account."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.permissions import require_role_manager, require_sign_in_manager
from audit.services import record
from web.access import require_admin
from web.errors import ConflictError, InvalidError, NotFoundError
from web.undo import TooLateError

from . import secrets, usernames
from .models import Invitation, Role, Scope, Token, User
from .reset_links import reset_path
from .sharing import hand_over

INVITED = timedelta(days=7)
LONGEST = 366  # days until a token expires
TOKENS_EACH = 50  # tokens of one person


@transaction.atomic
def end_tokens(user: User) -> None:
    """Revoke every refresh token and personal token of the person."""
    valid = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in valid], ignore_conflicts=True)
    user.api_tokens.all().delete()


@transaction.atomic
def after_password_change(user: User) -> None:
    """Revoke what a new password does not revoke by itself, and record the change.

    Sessions, access tokens and personal tokens carry the password's hash, so they are invalid already.
    """
    end_tokens(user)
    record("user.password_change", obj=user)


@transaction.atomic
def change_role(user: User, role: Role, *, before: Role | None = None) -> None:
    """Set the role of a person, and record it unless it is the role that they had (`before`)."""
    user.set_role(role)
    # The admin saves the role with every form, so most of these are no change.
    if role != before:
        record("user.role_change", obj=user, role=str(role))


@transaction.atomic
def make_token(*, user: User, name: str, scopes: list[str], days: int) -> tuple[Token, str]:
    """Create a personal API token; return it with its secret, which cannot be read again."""
    if not scopes or set(scopes) - set(Scope.values):
        raise InvalidError(_("Choose at least one scope."), field="scopes")
    if Scope.ADMIN in scopes:
        require_admin(user)
    if not 1 <= days <= LONGEST:
        raise InvalidError(_("A token can be valid for 1 to %(days)s days.") % {"days": LONGEST}, field="days")
    if user.api_tokens.count() >= TOKENS_EACH:
        message = _("You have reached the limit of %(count)s tokens. Revoke one that you no longer use.")
        raise ConflictError(message % {"count": TOKENS_EACH})
    secret = secrets.generate("pat")
    token = Token.objects.create(
        user=user,
        name=name[:60],
        scopes=sorted(set(scopes)),
        hash=secrets.digest(secret),
        stamp=user.get_session_auth_hash(),
        expires_at=timezone.now() + timedelta(days=days),
    )
    record("token.create", user=user, obj=token, scopes=token.scopes, days=days)
    return token, secret


@transaction.atomic
def end_token(*, user: User, pk: int) -> Token:
    """Revoke one of the person's own tokens, and return what it was.

    Raise NotFoundError if it is somebody else's, so that nobody learns which keys exist.
    """
    token = user.api_tokens.filter(pk=pk).first()
    if token is None:
        raise NotFoundError
    record("token.end", user=user, obj=token)
    token.delete()
    return token


@transaction.atomic
def restore_token(*, user: User, stamp: str, **values: Any) -> Token:
    """Create anew a token that the person has revoked, so that its secret works again. Created anew twice, it is the same one.

    Raise TooLateError if the password was changed since, which revokes all tokens; `stamp` is `secrets.digest` of the token's.
    """
    valid_stamp = user.get_session_auth_hash()
    if secrets.digest(valid_stamp) != stamp or user.api_tokens.count() >= TOKENS_EACH:
        raise TooLateError
    token, is_new = Token.objects.get_or_create(
        hash=values.pop("hash"), defaults={"user": user, "stamp": valid_stamp, **values}
    )
    if is_new:
        record("token.restore", user=user, obj=token)
    return token


@transaction.atomic
def invite(*, user: User, role: Role, note: str = "") -> tuple[Invitation, str]:
    """Create an invitation; return it with the secret of its link, which works once within a week."""
    require_admin(user)
    secret = secrets.generate("inv")
    invitation = Invitation.objects.create(
        hash=secrets.digest(secret), note=note[:120], role=role, invited_by=user, expires_at=timezone.now() + INVITED
    )
    record("invitation.create", user=user, obj=invitation, role=str(role))
    return invitation, secret


@transaction.atomic
def invite_each(*, user: User, role: Role, notes: Sequence[str]) -> list[tuple[str, str]]:
    """Create an invitation for each note; return the notes with the secrets of their links.

    The secret is empty for the e-mail address of somebody who has an account, who is not invited again.
    """
    require_admin(user)
    addresses = User.objects.exclude(email="").values_list("email", flat=True)
    taken = {address.lower() for address in addresses}
    return [(note, "" if note.lower() in taken else invite(user=user, role=role, note=note)[1]) for note in notes]


def get_open_invitation(secret: str, *, lock: bool = False) -> Invitation:
    """Return the open invitation of a link; raise NotFoundError unless its creator is still an active administrator."""
    invitation = None
    if secrets.is_well_formed(secret, "inv"):
        invitations = Invitation.objects.select_related("invited_by")
        if lock:
            invitations = invitations.select_for_update(of=("self",))
        invitation = invitations.filter(hash=secrets.digest(secret), expires_at__gt=timezone.now()).first()
    if invitation is None or not (invitation.invited_by.is_active and invitation.invited_by.is_admin):
        raise NotFoundError(_("This invitation was already used, has expired or was withdrawn. Ask for another one."))
    return invitation


@transaction.atomic
def withdraw_invitation(*, user: User, pk: int) -> Invitation:
    """Delete an open invitation, whoever created it, so that its link stops working; return what was deleted."""
    require_admin(user)
    invitation = Invitation.objects.filter(pk=pk).first()
    if invitation is None:
        raise NotFoundError
    record("invitation.end", user=user, obj=invitation)
    invitation.delete()
    return invitation


@transaction.atomic
def restore_invitation(*, user: User, invited_by: int, **values: Any) -> Invitation:
    """Create an invitation anew that was withdrawn, so that its link works again until it expires.

    Its link ends with the role of the person who made it, as ever. Created anew twice, it is the same one.
    """
    require_admin(user)
    maker = User.objects.filter(pk=invited_by).first()
    if maker is None:
        raise NotFoundError
    invitation, is_new = Invitation.objects.get_or_create(
        hash=values.pop("hash"), defaults={"invited_by": maker, **values}
    )
    if is_new:
        record("invitation.restore", user=user, obj=invitation, role=str(invitation.role))
    return invitation


@transaction.atomic
def create_invited_account(*, secret: str, username: str, email: str, password: str) -> User:
    """Create the account that an invitation is for, and delete the invitation."""
    invitation = get_open_invitation(secret, lock=True)
    user = User(username=username, email=email)
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        raise _invalid_fields(error.message_dict) from None
    try:
        usernames.refuse_official(username)
    except ValidationError as error:
        raise _invalid_fields({"username": error.messages}) from None
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise _invalid_fields({"password": error.messages}) from None
    user.set_password(password)
    try:
        with transaction.atomic():  # a savepoint, because PostgreSQL aborts the transaction of a failed statement
            user.save()
    except IntegrityError:  # of two who join at once with the same name, the second arrives here
        raise InvalidError(_("This name has just been taken. Choose another."), field="username") from None
    user.set_role(Role(invitation.role))
    record("user.join", user=user, obj=user, role=invitation.role, invited_by=str(invitation.invited_by))
    invitation.delete()
    return user


def _invalid_fields(messages: dict[str, list[str]]) -> InvalidError:
    problems = [{"field": field, "message": " ".join(texts)} for field, texts in messages.items()]
    return InvalidError(_("Some fields are not valid."), problems=problems)


def create_reset_link(*, user: User, person: User) -> str:
    """Return the path under which a person sets a new password, once, within a day. An admin passes it on.

    Raise an error unless `user` may sign in as the person (see permissions.require_sign_in_manager).
    """
    require_sign_in_manager(user, person)
    record("user.reset_link", user=user, obj=person)
    return reset_path(person, maker=user)


@transaction.atomic
def assign_role(*, user: User, person: User, role: Role) -> None:
    """Give a person another role.

    Raise an error unless `user` may change it (see permissions.require_role_manager). Nobody changes their own, so that an
    installation never loses its last administrator.
    """
    require_role_manager(user, person)
    if person == user:
        raise InvalidError(_("You cannot change your own role. Ask another administrator."), field="person")
    change_role(person, role, before=person.role)


@transaction.atomic
def close_account(*, user: User, person: User, heir: User | None = None) -> int:
    """Close a leaver's account and end its sessions and tokens; return how many objects were handed over to `heir`.

    Without an heir, the objects stay with the closed account.
    """
    require_role_manager(user, person)
    if person == user:
        raise InvalidError(_("You cannot close your own account. Ask another administrator."), field="person")
    moved = hand_over(user=user, leaver=person, to=heir) if heir else 0
    person.is_active = False
    person.save(update_fields=["is_active"])  # the receivers in rights.py end tokens and invitations
    record("user.close", user=user, obj=person, heir=heir.get_username() if heir else "", objects=moved)
    return moved


@transaction.atomic
def reopen_account(*, user: User, person: User) -> None:
    """Let a person whose account was closed sign in again. Tokens and invitations do not come back.

    Raise an error unless `user` may change the person's role (see permissions.require_role_manager).
    """
    require_role_manager(user, person)
    person.is_active = True
    person.save(update_fields=["is_active"])
    record("user.reopen", user=user, obj=person)


@transaction.atomic
def remove_second_factor(*, user: User, person: User) -> None:
    """Remove the second factor of somebody who lost the app, the key and the recovery codes.

    Raise an error unless `user` may sign in as the person (see permissions.require_sign_in_manager).
    """
    require_sign_in_manager(user, person)
    # One by one, because each deletion sends the signal that writes its audit entry.
    for authenticator in Authenticator.objects.filter(user=person):
        authenticator.delete()


@transaction.atomic
def set_limits(*, user: User, person: User, **limits: Any) -> None:
    """Set limits of one person; None stands for the default of the installation. For administrators.

    `limits` are columns of User: `running_limit` and `queued_limit` in runs, `storage_limit_mb` in MiB.
    """
    require_admin(user)
    for name, value in limits.items():
        setattr(person, name, value)
    person.save(update_fields=list(limits))
    record("user.limits", user=user, obj=person, **limits)
