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
    others = User.objects.filter(is_active=True).exclude(pk=shared.owner_id)
    groups = Group.objects.order_by("name") if may_share else []
    return {
        "request": context["request"],
        "csrf_token": context["csrf_token"],
        "kind": rules.kind_of(shared),
        "name": shared.name,
        "lines": rules.access_list(shared),
        "may_share": may_share,
        "people": others.order_by("username").values_list("username", flat=True) if may_share else [],
        "groups": [(group.name, rules.group_name(group)) for group in groups],
    }
