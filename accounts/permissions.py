"""Who may see and manage an object. Pages, the admin and the API all use these rules.

An object with an `owner` is visible to its owner, to admins, and to holders of guardian's `view_<model>` or `change_<model>`
permission, directly or through a group. Its owner, admins, and holders of `change_<model>` may manage it. Only its owner and
admins may share it or give it away.

Objects of a model with `passing = True`, such as a task that reads a file, belong to their owner alone and can't be shared.
For a model with `shared_through = "experiment"`, the owner and the shares of that related object decide, so that a run and
its results are always visible to the same people.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext_lazy as _
from guardian.models import GroupObjectPermission, UserObjectPermission
from guardian.shortcuts import assign_perm, remove_perm

from web.access import require_admin
from web.errors import NotAllowedError, NotFoundError

from .models import BaseModelRule, Removal, User

M = TypeVar("M", bound=Model)


class OnlyOwnerError(NotAllowedError):
    code = "only_owner"
    message = _("Only its owner or an administrator can share this or give it away.")


class OnlySuperuserError(NotAllowedError):
    code = "only_superuser"
    message = _("Only the first administrator can do this to another administrator's account. Nothing was changed.")


# Plain SQL, because guardian's shortcut casts every key of the table to text, and because the ORM takes a millisecond to
# build this query (bench/permissions.py).
_SHARED = f"""
SELECT CAST(object_pk AS bigint) FROM {UserObjectPermission._meta.db_table}
WHERE user_id = %s AND content_type_id = %s AND permission_id IN (%s, %s)
UNION ALL SELECT CAST(object_pk AS bigint) FROM {GroupObjectPermission._meta.db_table}
WHERE group_id IN (SELECT group_id FROM {User.groups.through._meta.db_table} WHERE user_id = %s)
AND content_type_id = %s AND permission_id IN (%s, %s)"""  # noqa: S608  names of our own tables
_REMOVED = f"SELECT object_id FROM {Removal._meta.db_table} WHERE content_type_id = %s"  # noqa: S608  likewise
_keys: dict[ContentType, dict[str, int]] = {}  # of a model's permissions, by codename


def visible(user: User, queryset: QuerySet[M], *, manage: bool = False) -> QuerySet[M]:
    """Return the objects of `queryset` that the person may see, or manage. One query."""
    if not user.is_authenticated or not user.is_active:
        return queryset.none()
    queryset = without_removed(queryset)
    if user.is_admin:
        return queryset
    if getattr(queryset.model, "passing", False):
        return queryset.filter(owner=user)
    model, prefix = deciding_model(queryset.model)
    content_type = ContentType.objects.get_for_model(model)
    if not _keys.get(content_type):  # not cached while there are none yet, as in a database that is being created
        permissions = Permission.objects.filter(content_type=content_type)
        _keys[content_type] = dict(permissions.values_list("codename", "pk"))
    keys = _keys[content_type]
    granted = (content_type.pk, keys[_perm(model, True)], keys[_perm(model, manage)])
    shared = RawSQL(_SHARED, (user.pk, *granted, user.pk, *granted))  # noqa: S611  all parameters are keys
    return queryset.filter(Q(**{f"{prefix}owner": user}) | Q(**{f"{prefix}pk__in": shared}))


def deciding_model(model: Any) -> tuple[Any, str]:
    """Return the model whose owners and shares decide about objects of `model`, and the prefix of lookups on it."""
    if not hasattr(model, "shared_through"):
        return model, ""
    return model._meta.get_field(model.shared_through).related_model, f"{model.shared_through}__"


def without_removed(queryset: QuerySet[M]) -> QuerySet[M]:
    """Leave out the objects that somebody has deleted a moment ago (see removals.py)."""
    model, prefix = deciding_model(queryset.model)
    if not hasattr(model, "removed_by"):
        return queryset
    removed = RawSQL(_REMOVED, (ContentType.objects.get_for_model(model).pk,))  # noqa: S611  the parameter is a key
    return queryset.filter(~Q(**{f"{prefix}pk__in": removed}))


def get_visible(user: User, queryset: QuerySet[M], *, manage: bool = False, **lookup: object) -> M:
    """Return the object of `queryset` that `lookup` selects.

    Raise NotFoundError unless the person may see it, so that a stranger never learns that it exists. With `manage`, raise
    NotAllowedError to somebody who may see it but not change it.
    """
    obj = visible(user, queryset).filter(**lookup).first()
    if obj is None:
        raise NotFoundError
    if manage and not can_manage(user, obj):
        raise NotAllowedError
    return obj


def can_manage(user: User, obj: Model) -> bool:
    """Return whether the person may change and delete the object: its owner, an admin, or a holder of `change_<model>`."""
    return owns(user, obj) or visible(user, type(obj)._default_manager.filter(pk=obj.pk), manage=True).exists()


def owns(user: User, obj: Model) -> bool:
    """Return whether the person may share the object and give it away: its owner or an admin."""
    return user.is_active and (user.is_admin or permission_object(obj).owner_id == user.pk)


def require_creator(user: User) -> None:
    """Raise NotAllowedError for a viewer, who may not upload and train."""
    if not user.can_create:
        raise NotAllowedError


def require_sign_in_manager(user: User, person: User) -> None:
    """Raise an error unless `user` may change how `person` signs in: password, reset link, e-mail address, second factor.

    Whoever may do that can act as the person. So for another administrator only a superuser may: the first administrator,
    or one created on the command line.
    """
    require_admin(user)
    if not may_manage_sign_in(user, person):
        raise OnlySuperuserError


def may_manage_sign_in(user: User, person: User) -> bool:
    """Return what `require_sign_in_manager` requires, to decide what a page offers."""
    return user.is_admin and (user.is_superuser or user == person or not person.is_admin)


def require_role_manager(user: User, person: User) -> None:
    """Raise an error unless `user` may change the person's role, and close or reopen the account.

    For a superuser only another superuser may.
    """
    require_admin(user)
    if not may_manage_role(user, person):
        raise OnlySuperuserError


def may_manage_role(user: User, person: User) -> bool:
    """Return what `require_role_manager` requires, to decide what a page offers."""
    return user.is_admin and (user.is_superuser or user == person or not person.is_superuser)


def base_model_allowed(name: str) -> bool:
    """Return whether the list in the admin allows this base model of the hub.

    `name` is an id such as `google-bert/bert-base-uncased`; case counts, as on the hub. An empty list allows nothing.
    """
    return name in allowed_base_models([name])


def allowed_base_models(names: Iterable[str]) -> set[str]:
    """Return those of the names of base models of the hub that the list in the admin allows."""
    patterns = list(BaseModelRule.objects.values_list("pattern", flat=True))
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def grant_access(obj: Model, *, to: User | Group, manage: bool = False) -> None:
    """Let a person or a group see, or manage, the object.

    Who may do this is checked by `sharing.set_access`, not here. An object that is `shared_through` another one is shared
    together with that one.
    """
    shared = permission_object(obj)
    assign_perm(_perm(type(shared), manage), to, shared)


def revoke_access(obj: Model, *, to: User | Group) -> None:
    """Withdraw what `grant_access` gave to a person or a group, at both levels; do nothing if they had no access."""
    shared = permission_object(obj)
    for manage in (False, True):
        remove_perm(_perm(type(shared), manage), to, shared)


def forget_shares(sender: type[Model], instance: Model, **kwargs: Any) -> None:
    """Delete the shares of a deleted object and its removal: a later object with the same key must not inherit them.

    A receiver of `post_delete` of every model. guardian's rows name an object by its key without a foreign key, so the
    database does not delete them.
    """
    if hasattr(instance, "owner_id") and not hasattr(instance, "shared_through"):
        content_type = ContentType.objects.get_for_model(sender)
        Removal.objects.filter(content_type=content_type, object_id=instance.pk).delete()
        for shares in (UserObjectPermission, GroupObjectPermission):
            shares.objects.filter(content_type=content_type, object_pk=str(instance.pk)).delete()


def permission_object(obj: Model) -> Any:
    """Return the object whose owner and shares apply to this one: itself, or the one that it is `shared_through`."""
    return getattr(obj, obj.shared_through) if hasattr(obj, "shared_through") else obj


def _perm(model: type[Model], manage: bool) -> str:
    return f"{'change' if manage else 'view'}_{model._meta.model_name}"
