"""The rule book: who sees and who manages an object. Pages, admin and API all ask here.

An object with an `owner` is seen by its owner, by admins, and by whom guardian's `view_<model>` or `change_<model>` names,
directly or through a group. It is managed by its owner, by admins, and by holders of `change_<model>`.
"""

from collections.abc import Mapping
from hmac import compare_digest
from ipaddress import ip_address
from typing import TypeVar

from django.conf import settings
from django.db.models import Model, Q, QuerySet
from guardian.shortcuts import assign_perm, get_objects_for_user

from .errors import NotAllowed, NotFound
from .models import User

M = TypeVar("M", bound=Model)


def visible(user: User, queryset: QuerySet[M], *, manage: bool = False) -> QuerySet[M]:
    """The objects of `queryset` that the person may see (or manage): one query."""
    if not user.is_authenticated or not user.is_active:
        return queryset.none()
    if user.is_admin:
        return queryset
    name = queryset.model._meta.model_name
    perms = [f"change_{name}"] if manage else [f"view_{name}", f"change_{name}"]
    shared = get_objects_for_user(user, perms, queryset.model, any_perm=True, accept_global_perms=False)
    return queryset.filter(Q(owner=user) | Q(pk__in=shared.values("pk")))


def get_visible(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object, or NotFound: a stranger never learns that it exists."""
    found = visible(user, queryset).filter(**lookup).first()
    if found is None:
        raise NotFound
    return found


def get_managed(user: User, queryset: QuerySet[M], **lookup: object) -> M:
    """The object if the person may change it; NotFound to a stranger, NotAllowed to a reader."""
    found = get_visible(user, queryset, **lookup)
    if not visible(user, queryset.filter(pk=found.pk), manage=True).exists():
        raise NotAllowed
    return found


def require_creator(user: User) -> None:
    if not user.can_create:
        raise NotAllowed


def require_admin(user: User) -> None:
    if not user.is_admin:
        raise NotAllowed


def share(obj: Model, *, to: object, manage: bool = False) -> None:
    """Let a person or a group see (or manage) the object."""
    assign_perm(f"{'change' if manage else 'view'}_{obj._meta.model_name}", to, obj)


def may_read_metrics(environ: Mapping[str, object]) -> bool:
    """Whoever carries METRICS_TOKEN; where none is set, this machine, asked by its own name and through no proxy.

    `environ` is the request's, as WSGI has it. Behind a proxy every caller comes from this machine, so the name that was
    asked for and the headers that proxies add are looked at too.
    """
    if settings.METRICS_TOKEN:
        given = str(environ.get("HTTP_AUTHORIZATION", ""))
        return compare_digest(given.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())
    forwarded = any(
        name in environ for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")
    )
    host = str(environ.get("HTTP_HOST", "")).rpartition("@")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return not forwarded and is_loopback(str(environ.get("REMOTE_ADDR", ""))) and is_loopback(name)


def is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
