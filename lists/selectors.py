"""Queries of tags, and of the objects that carry them."""

from typing import TypeVar

from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet

from accounts.models import User
from accounts.permissions import visible
from accounts.sharing import shared_object
from engine.names import name_key
from web.errors import NotFoundError

from .models import Annotated, Tag
from .queries import M, require_one_of

MOST_CHOICES = 200

A = TypeVar("A", bound=Annotated)


def annotated_object(user: User, kind: str, name: str) -> Annotated:
    """Return the object of this kind and name for somebody who may change it; `kind` is that of `sharing.shared_models`."""
    obj = shared_object(user, kind, name, manage=True)
    if not isinstance(obj, Annotated):
        raise NotFoundError
    return obj


def with_tag(rows: QuerySet[A], tag: str) -> QuerySet[A]:
    """Return the rows that have this tag, in any case and width; all if none is given."""
    return rows.filter(tags__name_key=name_key(tag)) if tag else rows


def of_owner(rows: QuerySet[M], user: User, owner: str) -> QuerySet[M]:
    """Return the person's own rows for "me", and all for an empty `owner`; raise InvalidError for anything else."""
    require_one_of(owner, ("", "me"), "owner")
    return rows.filter(owner=user) if owner else rows


def tag_choices(user: User, model: type[Annotated]) -> list[str]:
    """Return the tags of all objects of a model that the person may see, at most MOST_CHOICES."""
    objects = visible(user, model._default_manager.order_by()).values("pk")
    tags = Tag.objects.filter(content_type=ContentType.objects.get_for_model(model), object_id__in=objects)
    names = tags.order_by("name_key").values_list("name_key", "name").distinct()[:MOST_CHOICES]
    return [*dict(names).values()]
