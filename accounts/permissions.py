"""The rule book: who sees and who manages an object. Pages, admin and API all ask here.

An object with an `owner` is seen by its owner, by admins, and by whom guardian's `view_<model>` or `change_<model>` names,
directly or through a group. It is managed by its owner, by admins, and by holders of `change_<model>`. Sharing it and giving
it away are for its owner and for admins alone.

What is `passing`, such as a task that reads a file, is its owner's alone and can't be shared.
A model may hang on another one (`shared_through = "experiment"`): that one's owner and shares decide, so that a run and its
results are always open to the same people.
"""

from fnmatch import fnmatchcase
from typing import Any, TypeVar

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext_lazy as _
from guardian.models import GroupObjectPermission, UserObjectPermission
from guardian.shortcuts import assign_perm, remove_perm

from web.access import require_admin
from web.errors import NotAllowed, NotFound

from .models import BaseModelRule, User

M = TypeVar("M", bound=Model)


class OnlyOwner(NotAllowed):
    code = "only_owner"
    message = _("Only its owner or an administrator can share this or give it away.")


class OnlySuperuser(NotAllowed):
    code = "only_superuser"
    message = _("Only the first administrator can do this to another administrator's account. Nothing was changed.")


def visible(user: User, queryset: QuerySet[M], *, manage: bool = False) -> QuerySet[M]:
    """The objects of `queryset` that the person may see (or manage): one query."""
    if not user.is_authenticated or not user.is_active:
        return queryset.none()
    if user.is_admin:
        return queryset
    if getattr(queryset.model, "passing", False):
        return queryset.filter(owner=user)
    path, model = _decided_by(queryset.model)
    shared = Q(**{f"{path}pk__in": _shared_keys(user, model, manage)})
    return queryset.filter(Q(**{f"{path}owner": user}) | shared)


# guardian's shortcut casts every key of the table to text, and the ORM takes a millisecond to build this (bench/permissions.py).
_SHARED = f"""
SELECT CAST(object_pk AS bigint) FROM {UserObjectPermission._meta.db_table}
WHERE user_id = %s AND content_type_id = %s AND permission_id IN (%s, %s)
UNION ALL SELECT CAST(object_pk AS bigint) FROM {GroupObjectPermission._meta.db_table}
WHERE group_id IN (SELECT group_id FROM {User.groups.through._meta.db_table} WHERE user_id = %s)
AND content_type_id = %s AND permission_id IN (%s, %s)"""  # noqa: S608  names of our own tables


def _shared_keys(user: User, model: type[Model], manage: bool) -> RawSQL:
    """Keys of the objects that are shared with the person, or with a group of theirs."""
    content_type = ContentType.objects.get_for_model(model)
    known = _permission_keys(content_type)
    granted = (content_type.pk, known[_perm(model, True)], known[_perm(model, manage)])
    return RawSQL(_SHARED, (user.pk, *granted, user.pk, *granted))  # noqa: S611  nothing of it is said by a caller


_keys: dict[ContentType, dict[str, int]] = {}


def _permission_keys(content_type: ContentType) -> dict[str, int]:
    """Of a model's permissions by name; kept, once the migrations that make them are through."""
    if not (known := _keys.get(content_type, {})):
        known = dict(Permission.objects.filter(content_type=content_type).values_list("codename", "pk"))
        _keys[content_type] = known
    return known


def get_visible(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object, or NotFound: a stranger never learns that it exists."""
    found = visible(user, queryset).filter(**lookup).first()
    if found is None:
        raise NotFound
    return found


def get_managed(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object if the person may change it; NotFound to a stranger, NotAllowed to a reader."""
    found = get_visible(user, queryset, **lookup)
    if not can_manage(user, found):
        raise NotAllowed
    return found


def can_manage(user: User, obj: Model) -> bool:
    """Return whether the person may change and delete the object: its owner, an admin, or a holder of `change_<model>`."""
    return owns(user, obj) or visible(user, type(obj)._default_manager.filter(pk=obj.pk), manage=True).exists()


def owns(user: User, obj: Any) -> bool:
    """Whether the person may share the object and give it away."""
    return user.is_active and (user.is_admin or decided_by(obj).owner_id == user.pk)


def require_owner(user: User, obj: Model) -> None:
    if not owns(user, obj):
        raise OnlyOwner


def require_creator(user: User) -> None:
    if not user.can_create:
        raise NotAllowed


def require_sign_in_manager(user: User, person: User) -> None:
    """Whoever may change how somebody signs in (password, link for one, address, second factor) can act as them.

    So of another administrator only a superuser may: the first administrator, and who is made one on the command line.
    """
    require_admin(user)
    if not may_manage_sign_in(user, person):
        raise OnlySuperuser


def may_manage_sign_in(user: User, person: User) -> bool:
    return user.is_admin and (user.is_superuser or user == person or not person.is_admin)


def require_role_manager(user: User, person: User) -> None:
    """Whoever may change somebody's role, and close or open the account; a superuser's only a superuser."""
    require_admin(user)
    if not may_manage_role(user, person):
        raise OnlySuperuser


def may_manage_role(user: User, person: User) -> bool:
    return user.is_admin and (user.is_superuser or user == person or not person.is_superuser)


def base_model_allowed(name: str) -> bool:
    """Whether the admin's list has this base model of the hub."""
    return any(fnmatchcase(name, pattern) for pattern in BaseModelRule.objects.values_list("pattern", flat=True))


def share(obj: Model, *, to: Any, manage: bool = False) -> None:
    """Let a person or a group see (or manage) the object."""
    found = decided_by(obj)
    assign_perm(_perm(type(found), manage), to, found)


def unshare(obj: Model, *, to: Any) -> None:
    found = decided_by(obj)
    for manage in (False, True):
        remove_perm(_perm(type(found), manage), to, found)


def forget_shares(sender: Any, instance: Any, **kwargs: Any) -> None:
    """Shares of a deleted object must not wait for another one that gets its key."""
    if hasattr(instance, "owner_id") and not hasattr(instance, "shared_through"):
        for shares in (UserObjectPermission, GroupObjectPermission):
            content_type = ContentType.objects.get_for_model(sender)
            shares.objects.filter(content_type=content_type, object_pk=str(instance.pk)).delete()


def decided_by(obj: Any) -> Any:
    """The object whose owner and shares decide about this one: itself, or what it hangs on."""
    return getattr(obj, obj.shared_through) if hasattr(obj, "shared_through") else obj


def _decided_by(model: Any) -> tuple[str, type[Model]]:
    """The same for a class, with the path that leads there."""
    if not hasattr(model, "shared_through"):
        return "", model
    return f"{model.shared_through}__", model._meta.get_field(model.shared_through).related_model


def _perm(model: type[Model], manage: bool) -> str:
    return f"{'change' if manage else 'view'}_{model._meta.model_name}"
