"""`{% annotations object manages %}`: the tags and the note of an object, with forms for those who may change them."""

from typing import Any

from django import template
from django.urls import reverse

from accounts.sharing import kind_of
from lists.models import LONGEST_NOTE, Annotated

register = template.Library()


@register.inclusion_tag("parts/annotations.html", takes_context=True)
def annotations(context: template.RequestContext, obj: Annotated, manages: bool) -> dict[str, Any]:
    return annotation_context(obj, manages=manages) | {"csrf_token": context["csrf_token"]}


def annotation_context(obj: Annotated, *, manages: bool) -> dict[str, Any]:
    return {
        "object": obj,
        "kind": kind_of(obj),
        "list_page": reverse(obj.list_page),
        "tags": obj.tags.all(),
        "longest_note": LONGEST_NOTE,
        "manages": manages,
    }
