"""`{% sharing object %}`: who can see it and, for who may, forms to share it and to give it away."""

from typing import Any

from django import template
from django.contrib.auth.models import Group

from accounts import sharing as rules
from accounts.models import User
from accounts.permissions import decided_by, owns

register = template.Library()


@register.inclusion_tag("parts/sharing.html", takes_context=True)
def sharing(context: Any, obj: Any) -> dict[str, Any]:
    user, obj = context["request"].user, decided_by(obj)
    may_share = owns(user, obj)
    return {
        "request": context["request"],
        "csrf_token": context["csrf_token"],
        "kind": rules.kind_of(obj),
        "name": obj.name,
        "lines": rules.access_list(obj),
        "may_share": may_share,
        "levels": rules.LEVELS,
        "people": _people(obj) if may_share else [],
        "groups": [(g.name, rules.group_name(g)) for g in Group.objects.order_by("name")] if may_share else [],
    }


def _people(obj: Any) -> list[str]:
    others = User.objects.filter(is_active=True).exclude(pk=obj.owner_id)
    return list(others.order_by("username").values_list("username", flat=True))
