"""Revoke what a role gave when the role changes, in the same transaction, whichever code changes it.

Each request reads the role again, so sessions and tokens need nothing. Revoked here is what would be used later: the
invitations of people who are no longer administrators, and the tokens of closed accounts. Links for new passwords contain
`standing_of` their person and their maker (see reset_links.py).
"""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.dispatch import Signal, receiver
from django.utils import timezone

from audit.services import record

from .models import Invitation, Role, Standing, User
from .services import end_tokens

DECISIVE = {"is_active", "is_superuser", "is_staff"}  # columns that decide the role


@receiver(post_save, sender=User)
def account_saved(instance: User, raw: bool, update_fields: Iterable[str] | None, **kwargs: Any) -> None:
    """Follow a changed role. `raw` is loaddata, which loads the standing as well."""
    if not raw and (update_fields is None or DECISIVE & set(update_fields)):
        follow_roles([instance.pk])


@receiver(m2m_changed, sender=User.groups.through)
def groups_changed(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **kwargs: Any) -> None:
    """Follow a change of membership. `instance` is the group if `reverse`, else the user."""
    if reverse and action == "pre_clear":  # a clear has no pk_set, so its members are noted beforehand
        instance.former_members = list(instance.user_set.values_list("pk", flat=True))
    if not action.startswith("post_"):
        return
    if reverse:
        follow_roles(pk_set or instance.former_members)
    else:
        follow_roles([instance.pk])


@receiver([pre_delete, post_delete], sender=Group)
def group_deleted(signal: Signal, instance: Any, **kwargs: Any) -> None:
    """Follow the roles of a deleted group's members, who are noted beforehand because they are gone afterwards."""
    if signal is pre_delete:
        instance.former_members = list(instance.user_set.values_list("pk", flat=True))
    else:
        follow_roles(instance.former_members)


@transaction.atomic
def follow_roles(people: Iterable[int]) -> None:
    """Store the current roles of people, given by primary key, and revoke what their roles no longer allow."""
    for user in User.objects.select_for_update().filter(pk__in=people):
        role = str(user.role) if user.is_active else ""
        if not Standing.objects.filter(user=user, role=role).exists():
            Standing.objects.update_or_create(user=user, defaults={"role": role, "since": timezone.now()})
        if user.is_staff != user.is_admin:  # some packages check it instead of the role
            User.objects.filter(pk=user.pk).update(is_staff=user.is_admin)
        if role != Role.ADMIN:
            for invitation in Invitation.objects.filter(invited_by=user):
                record("invitation.end", obj=invitation, invited_by=user.get_username())
                invitation.delete()
        if not user.is_active:
            end_tokens(user)
