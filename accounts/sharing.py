"""Sharing, giving away, leaving: for every model that has an `owner`."""

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group
from django.core.exceptions import FieldDoesNotExist
from django.db import transaction
from django.db.models import Count, Model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from guardian.shortcuts import get_groups_with_perms, get_users_with_perms

from accounts.permissions import decided_by, get_visible, require_owner, share, unshare, visible
from audit.services import record
from web.access import require_admin
from web.errors import Invalid, NotFound

from .models import Role, User

LEVELS = {
    "none": gettext_lazy("not any more"),
    "view": gettext_lazy("to view"),
    "manage": gettext_lazy("to manage"),
    "owner": gettext_lazy("as the owner"),
}


EVERYONE = "everyone"


@dataclass(frozen=True)
class Access:
    """One line of who can see an object: a person or a group, at which level, and why."""

    who: User | Group | None  # None: all administrators
    name: str
    level: str
    why: str

    @property
    def kind(self) -> str:
        return "group" if isinstance(self.who, Group) else "person"

    @property
    def is_share(self) -> bool:
        return self.level in ("view", "manage")


def owned_models() -> list[type[Model]]:
    """Every model whose objects belong to somebody and outlive what they were made for."""
    return [model for model in apps.get_models() if _has_owner(model) and not getattr(model, "passing", False)]


def shared_models() -> dict[str, type[Model]]:
    """What can be shared, by name; what hangs on another object is shared with that one."""
    return {kind_of(m): m for m in owned_models() if not hasattr(m, "shared_through")}


def kind_of(model: Any) -> str:
    """What people and programs call it: `shared_as`, or the class's own name."""
    return str(getattr(model, "shared_as", model._meta.model_name))


def _has_owner(model: type[Model]) -> bool:
    try:
        return model._meta.get_field("owner").related_model is User
    except FieldDoesNotExist:
        return False


def shared_object(user: User, kind: str, name: str) -> Any:
    """The object of that kind and name, if the person may see it."""
    model = shared_models().get(kind)
    if model is None:
        raise NotFound
    return get_visible(user, model._default_manager.select_related("owner"), name=name)


def can_see(user: User, obj: Any) -> bool:
    return visible(user, type(obj)._default_manager.filter(pk=obj.pk)).exists()


def access_list(obj: Any) -> list[Access]:
    """Who can see the object, and why."""
    obj = decided_by(obj)
    manage, rows = f"change_{obj._meta.model_name}", [Access(obj.owner, _name(obj.owner), "owner", _("owns it"))]
    people: Any = get_users_with_perms(obj, attach_perms=True, with_group_users=False)
    groups: Any = get_groups_with_perms(obj, attach_perms=True)
    sizes = dict(Group.objects.filter(pk__in=[g.pk for g in groups]).annotate(n=Count("user")).values_list("pk", "n"))
    for person, perms in sorted(people.items(), key=lambda found: found[0].get_username()):
        rows.append(
            Access(person, _name(person), "manage" if manage in perms else "view", _("shared with this person"))
        )
    for group, perms in sorted(groups.items(), key=lambda found: found[0].name):
        why = _("shared with a group of %(count)s") % {"count": sizes.get(group.pk, 0)}
        rows.append(Access(group, group_name(group), "manage" if manage in perms else "view", why))
    return [*rows, Access(None, _("Administrators"), "all", _("may see and manage everything"))]


def _name(person: User) -> str:
    gone = "" if person.is_active else " " + _("(account closed)")
    return person.get_username() + gone


def group_name(group: Group) -> str:
    """A role's group in words."""
    words = {Role.ADMIN: _("all administrators"), Role.MEMBER: _("all members"), Role.VIEWER: _("all viewers")}
    return str(words.get(Role(group.name))) if group.name in Role.values else group.name


@transaction.atomic
def give(*, user: User, obj: Any, to: User | Group, level: str) -> None:
    """Set what a person or a group may do with the object: none, view, manage; owner gives it away."""
    obj = decided_by(obj)
    require_owner(user, obj)
    if level not in LEVELS:
        raise Invalid(_("Give none, view, manage or owner."), field="access")
    if level == "owner":
        return _give_away(user, obj, to)
    if to == obj.owner:
        raise Invalid(_("The owner can see and manage this anyway. Nothing was changed."), field="to")
    unshare(obj, to=to)
    if level != "none":
        share(obj, to=to, manage=level == "manage")
    record("share.end" if level == "none" else "share", user=user, obj=obj, to=str(to), access=level)


def _give_away(user: User, obj: Any, to: User | Group) -> None:
    if not isinstance(to, User) or not to.is_active or not to.can_create:
        raise Invalid(_("Only a member or an administrator can own this. Nothing was changed."), field="to")
    before = obj.owner.get_username()
    unshare(obj, to=to)
    _set_owner(obj, to)
    record("owner.change", user=user, obj=obj, to=to.get_username(), before=before)


def _set_owner(obj: Any, to: User) -> None:
    obj.owner = to
    obj.save(update_fields=["owner"])
    for model in owned_models():  # what hangs on it goes along
        if getattr(model, "shared_through", None) and _hangs_on(model, obj):
            model._default_manager.filter(**{model.shared_through: obj}).update(owner=to)  # type: ignore[attr-defined]


def _hangs_on(model: Any, obj: Model) -> bool:
    return model._meta.get_field(model.shared_through).related_model is type(obj)


def belongings(person: User) -> dict[str, int]:
    """How many objects of each kind the person owns."""
    counts = {kind: model._default_manager.filter(owner=person).count() for kind, model in shared_models().items()}
    return {kind: count for kind, count in counts.items() if count}


@transaction.atomic
def hand_over(*, user: User, leaver: User, to: User) -> int:
    """Everything that one person owns becomes another's, in one step; the number of objects."""
    require_admin(user)
    if to == leaver:
        raise Invalid(_("Choose somebody else. Nothing was changed."), field="to")
    objects = [obj for model in shared_models().values() for obj in model._default_manager.filter(owner=leaver)]
    for obj in objects:
        _give_away(user, obj, to)
    record("owner.hand_over", user=user, obj=leaver, to=to.get_username(), objects=len(objects))
    return len(objects)


def recipients(name: str) -> list[User | Group]:
    """Whom a name means: a person, a group, or `everyone` who has an account: each role is a group."""
    if name == EVERYONE:
        return [Group.objects.get_or_create(name=role)[0] for role in Role]
    return [person_or_group(name)]


def person_or_group(name: str) -> User | Group:
    """`ada` is a person, `person:ada` too (for one called `everyone`), `group:night shift` a group."""
    name = name.removeprefix("person:")
    if name.startswith("group:"):
        found: User | Group | None = Group.objects.filter(name=name.removeprefix("group:")).first()
    else:
        found = User.objects.filter(username=name, is_active=True).first()
    if found is None:
        raise Invalid(_("There is no such person or group."), field="to")
    return found
