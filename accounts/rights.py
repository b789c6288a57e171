"""Rights end with the role that gave them, in the transaction that changes it, whatever way it changes.

A role is read anew with each request, so sessions and tokens follow by themselves. What waits to be used later is ended
here: the invitations of who is no administrator any more, and the tokens of who is out. Links for new passwords carry
`standing_of` their person and their maker (see reset_links.py).
"""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.dispatch import receiver
from django.utils import timezone

from audit.services import record

from .models import Invitation, Role, Standing, User
from .services import end_tokens

DECISIVE = {"is_active", "is_superuser", "is_staff"}


@receiver(post_save, sender=User)
def account_saved(instance: User, raw: bool, update_fields: Iterable[str] | None, **kwargs: Any) -> None:
    if not raw and (update_fields is None or DECISIVE & set(update_fields)):
        follow_roles([instance.pk])


@receiver(m2m_changed, sender=User.groups.through)
def groups_changed(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **kwargs: Any) -> None:
    if reverse and action == "pre_clear":
        instance.former_members = _members(instance)
    if action.startswith("post_"):
        follow_roles((pk_set or instance.former_members) if reverse else [instance.pk])


@receiver(pre_delete, sender=Group)
def group_goes(instance: Any, **kwargs: Any) -> None:
    instance.former_members = _members(instance)


@receiver(post_delete, sender=Group)
def group_gone(instance: Any, **kwargs: Any) -> None:
    follow_roles(instance.former_members)


@transaction.atomic
def follow_roles(people: Iterable[int]) -> None:
    """Note the roles that these people (by key) have now, and end what they have no right to any more."""
    for user in User.objects.select_for_update().filter(pk__in=people):
        role = str(user.role) if user.is_active else ""
        if not Standing.objects.filter(user=user, role=role).exists():
            Standing.objects.update_or_create(user=user, defaults={"role": role, "since": timezone.now()})
        if user.is_staff != user.is_admin:  # some packages ask for it in place of the role
            User.objects.filter(pk=user.pk).update(is_staff=user.is_admin)
        if role != Role.ADMIN:
            _end_invitations(user)
        if not user.is_active:
            end_tokens(user)


def _end_invitations(user: User) -> None:
    for invitation in Invitation.objects.filter(invited_by=user):
        record("invitation.end", obj=invitation, invited_by=user.get_username())
        invitation.delete()


def _members(group: Any) -> list[int]:
    return list(group.user_set.values_list("pk", flat=True))
