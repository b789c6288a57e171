"""Everything that changes an account."""

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
from web.errors import Conflict, Invalid, NotFound

from . import secrets, usernames
from .models import Invitation, Role, Scope, Token, User
from .reset_links import reset_path
from .sharing import hand_over

INVITED = timedelta(days=7)
LONGEST = 366  # days that a token may live
TOKENS_EACH = 50


@transaction.atomic
def end_tokens(user: User) -> None:
    """No refresh token and no personal token of the person works from here on."""
    living = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in living], ignore_conflicts=True)
    user.api_tokens.all().delete()


@transaction.atomic
def after_password_change(user: User) -> None:
    """Sessions, access tokens and personal tokens carry the password's hash, so they end by themselves; the rest here."""
    end_tokens(user)
    record("user.password_change", obj=user)


@transaction.atomic
def change_role(user: User, role: Role, *, before: Role | None = None) -> None:
    """`before` is the role that the person had; nothing is announced where it is the same."""
    user.set_role(role)
    if role != before:
        record("user.role_change", obj=user, role=str(role))


@transaction.atomic
def make_token(*, user: User, name: str, scopes: list[str], days: int) -> tuple[Token, str]:
    """A personal API token and its secret, which nobody can read again."""
    if not scopes or set(scopes) - set(Scope.values):
        raise Invalid(_("Choose what the token may be used for."), field="scopes")
    if Scope.ADMIN in scopes:
        require_admin(user)
    if not 1 <= days <= LONGEST:
        raise Invalid(_("A token lives from 1 to %(days)s days.") % {"days": LONGEST}, field="days")
    if user.api_tokens.count() >= TOKENS_EACH:
        message = _("You have %(count)s tokens, which is the limit. End one that you no longer use.")
        raise Conflict(message % {"count": TOKENS_EACH})
    secret = secrets.mint("pat")
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
def end_token(*, user: User, pk: int) -> None:
    token = user.api_tokens.filter(pk=pk).first()
    if token is None:
        raise NotFound
    record("token.end", user=user, obj=token)
    token.delete()


@transaction.atomic
def invite(*, user: User, role: Role, note: str = "") -> tuple[Invitation, str]:
    """An invitation and the secret of its link, which works once within a week."""
    require_admin(user)
    secret = secrets.mint("inv")
    invitation = Invitation.objects.create(
        hash=secrets.digest(secret), note=note[:120], role=role, invited_by=user, expires_at=timezone.now() + INVITED
    )
    record("invitation.create", user=user, obj=invitation, role=str(role))
    return invitation, secret


def invitation_of(secret: str, *, lock: bool = False) -> Invitation:
    """The invitation of a link, while it is open and its maker could make it today."""
    known = secrets.is_whole(secret, "inv")
    living = Invitation.objects.select_related("invited_by")
    living = living.select_for_update(of=("self",)) if lock else living
    invitation = living.filter(hash=secrets.digest(secret), expires_at__gt=timezone.now()).first() if known else None
    if invitation is None or not (invitation.invited_by.is_active and invitation.invited_by.is_admin):
        raise NotFound(_("This invitation was used already, has run out or was taken back. Ask for another one."))
    return invitation


@transaction.atomic
def withdraw(*, user: User, pk: int) -> None:
    require_admin(user)
    invitation = Invitation.objects.filter(pk=pk).first()
    if invitation is None:
        raise NotFound
    record("invitation.end", user=user, obj=invitation)
    invitation.delete()


@transaction.atomic
def join(*, secret: str, username: str, email: str, password: str) -> User:
    """Make the account that an invitation is for; the invitation is used up."""
    invitation = invitation_of(secret, lock=True)
    user = User(username=username, email=email)
    try:
        user.full_clean(exclude=["password"])
        _check_chosen(username)
        validate_password(password, user)
    except ValidationError as error:
        fields = getattr(error, "message_dict", None) or {"password": error.messages}
        problems = [{"field": field, "message": " ".join(said)} for field, said in fields.items()]
        raise Invalid(_("Some fields need a look."), problems=problems) from None
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:
        raise Invalid(_("This name has just been taken. Choose another."), field="username") from None
    user.set_role(Role(invitation.role))
    record("user.join", user=user, obj=user, role=invitation.role, invited_by=str(invitation.invited_by))
    invitation.delete()
    return user


def _check_chosen(username: str) -> None:
    """A name that somebody chose for themselves."""
    try:
        usernames.refuse_official(username)
    except ValidationError as error:
        raise ValidationError({"username": error}) from None


def reset_link(*, user: User, person: User) -> str:
    """The path under which a person sets a new password, once, within a day; for an admin to pass on."""
    require_sign_in_manager(user, person)
    record("user.reset_link", user=user, obj=person)
    return reset_path(person, maker=user)


@transaction.atomic
def close(*, user: User, person: User, heir: User | None = None) -> int:
    """Close a leaver's account: no sign-in, no token, no session. What the person owned goes to `heir`, or waits."""
    require_role_manager(user, person)
    if person == user:
        raise Invalid(_("Nobody closes their own account. Ask another administrator."), field="person")
    moved = hand_over(user=user, leaver=person, to=heir) if heir else 0
    person.is_active = False
    person.save(update_fields=["is_active"])  # rights.py ends tokens and invitations
    record("user.close", user=user, obj=person, heir=heir.get_username() if heir else "", objects=moved)
    return moved


@transaction.atomic
def reopen(*, user: User, person: User) -> None:
    require_role_manager(user, person)
    person.is_active = True
    person.save(update_fields=["is_active"])
    record("user.reopen", user=user, obj=person)


@transaction.atomic
def remove_second_factor(*, user: User, person: User) -> None:
    """For somebody who lost the app, the key and the recovery codes; the audit log hears of each that goes."""
    require_sign_in_manager(user, person)
    for authenticator in Authenticator.objects.filter(user=person):
        authenticator.delete()


@transaction.atomic
def set_limits(*, user: User, person: User, **limits: Any) -> None:
    """Quotas of one person; None: the installation's."""
    require_admin(user)
    for name, value in limits.items():
        setattr(person, name, value)
    person.save(update_fields=list(limits))
    record("user.limits", user=user, obj=person, **limits)
