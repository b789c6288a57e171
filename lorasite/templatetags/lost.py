"""Ways on from an error page: the list that the address belongs to, and objects whose names resemble the one in it."""

from typing import Any

from django import template
from django.db.models import Model
from django.template.context import Context

from lorasite.navigation import NavigationEntry, list_entry
from lorasite.similar_names import similar

register = template.Library()


@register.simple_tag(takes_context=True)
def list_of_address(context: Context) -> NavigationEntry | None:
    request: Any = context.get("request")
    user = getattr(request, "user", None)  # a request that failed before the authentication middleware has none
    return list_entry(request, user) if user and user.is_authenticated else None


@register.simple_tag(takes_context=True)
def similar_objects(context: Context) -> list[Model]:
    request: Any = context.get("request")
    user = getattr(request, "user", None)
    return similar(request, user) if user and user.is_authenticated else []
