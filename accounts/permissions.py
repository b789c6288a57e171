"""The rule book: who sees and who manages an object. Pages, admin and API all ask here.

An object with an `owner` is seen by its owner, by admins, and by whom guardian's `view_<model>` or `change_<model>` names,
directly or through a group. It is managed by its owner, by admins, and by holders of `change_<model>`. Sharing it and giving
it away are for its owner and for admins alone.

A model may hang on another one (`shared_through = "experiment"`): that one's owner and shares decide, so that a run and its
results are always open to the same people.
"""

from fnmatch import fnmatchcase
from functools import cache
from typing import Any, TypeVar

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import BigIntegerField, Model, Q, QuerySet
from django.db.models.functions import Cast
from django.utils.translation import gettext_lazy as _
from guardian.models import GroupObjectPermission, UserObjectPermission
from guardian.shortcuts import assign_perm, remove_perm

from .errors import NotAllowed, NotFound
from .models import BaseModelRule, User

M = TypeVar("M", bound=Model)


class OnlyOwner(NotAllowed):
    code = "only_owner"
    message = _("Only its owner or an administrator can share this or give it away.")


def visible(user: User, queryset: QuerySet[M], *, manage: bool = False) -> QuerySet[M]:
    """The objects of `queryset` that the person may see (or manage): one query."""
    if not user.is_authenticated or not user.is_active:
        return queryset.none()
    if user.is_admin:
        return queryset
    path, model = _decided_by(queryset.model)
    groups = User.groups.through.objects.filter(user=user).values("group")
    own = Q(**{f"{path}owner": user})
    direct = Q(**{f"{path}pk__in": _shares(UserObjectPermission, model, manage, user=user)})
    by_group = Q(**{f"{path}pk__in": _shares(GroupObjectPermission, model, manage, group__in=groups)})
    return queryset.filter(own | direct | by_group)


def _shares(grants: Any, model: type[Model], manage: bool, **to: object) -> QuerySet[Any]:
    """Keys of the objects that are shared. guardian's own shortcut casts every key of the table to text instead."""
    content_type = ContentType.objects.get_for_model(model)
    known, levels = _permission_keys(content_type), (True,) if manage else (False, True)
    permissions = [known[_perm(model, level)] for level in levels]
    found = grants.objects.filter(content_type=content_type, permission__in=permissions, **to)
    keys: QuerySet[Any] = found.order_by().values_list(Cast("object_pk", BigIntegerField()))
    return keys


@cache
def _permission_keys(content_type: ContentType) -> dict[str, int]:
    """Of a model's permissions by name; they stay as migrations made them."""
    return dict(Permission.objects.filter(content_type=content_type).values_list("codename", "pk"))


def get_visible(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object, or NotFound: a stranger never learns that it exists."""
    found = visible(user, queryset).filter(**lookup).first()
    if found is None:
        raise NotFound
    return found


def get_managed(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object if the person may change it; NotFound to a stranger, NotAllowed to a reader."""
    found = get_visible(user, queryset, **lookup)
    if not owns(user, found) and not visible(user, queryset.filter(pk=found.pk), manage=True).exists():
        raise NotAllowed
    return found


def owns(user: User, obj: Any) -> bool:
    """Whether the person may share the object and give it away."""
    return user.is_active and (user.is_admin or decided_by(obj).owner_id == user.pk)


def require_owner(user: User, obj: Model) -> None:
    if not owns(user, obj):
        raise OnlyOwner


def require_creator(user: User) -> None:
    if not user.can_create:
        raise NotAllowed


def require_admin(user: User) -> None:
    if not user.is_admin:
        raise NotAllowed


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
