"""`{% sharing object %}`: who can see an object, with forms to share it or give it away for those who may."""

from typing import Any

from django import template
from django.contrib.auth.models import Group
from django.db.models import Model

from accounts import sharing as rules
from accounts.models import User
from accounts.permissions import owns, permission_object

register = template.Library()


@register.inclusion_tag("parts/sharing.html", takes_context=True)
def sharing(context: template.RequestContext, obj: Model) -> dict[str, Any]:
    """Return the context of the part: who can see the object and, for its owner and admins, the forms."""
    user = context["request"].user
    shared = permission_object(obj)
    may_share = owns(user, shared)
    return {
        "request": context["request"],
        "csrf_token": context["csrf_token"],
        "kind": rules.kind_of(shared),
        "name": shared.name,
        "lines": rules.access_list(shared),
        "may_share": may_share,
        **(recipients_but(shared.owner) if may_share else {}),
    }


@register.inclusion_tag("parts/recipients.html", takes_context=True)
def recipients(context: template.RequestContext) -> dict[str, Any]:
    """Return the context of the part: everybody with whom the reader can share something."""
    return recipients_but(context["request"].user)


def recipients_but(owner: User) -> dict[str, Any]:
    """Return whom the owner of an object can share it with."""
    people = User.objects.filter(is_active=True).exclude(pk=owner.pk).order_by("username")
    groups = [(group.name, rules.group_name(group)) for group in Group.objects.order_by("name")]
    return {"people": people.values_list("username", flat=True), "groups": groups}
