"""Share an object, give it away, hand over everything of somebody who leaves: for every model that has an `owner`."""

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from guardian.shortcuts import get_groups_with_perms, get_users_with_perms

from audit.services import record
from web.access import require_admin
from web.errors import InvalidError, NotFoundError

from .models import Role, User
from .permissions import OnlyOwnerError, get_visible, grant_access, owns, permission_object, revoke_access

# The levels of access that can be given, and the message after giving each.
LEVELS = {
    "none": gettext_lazy("No longer shared with %(name)s."),
    "view": gettext_lazy("Shared with %(name)s: can view."),
    "manage": gettext_lazy("Shared with %(name)s: can view and manage."),
    "owner": gettext_lazy("%(name)s is the owner now."),
}
EVERYONE = "everyone"


@dataclass(frozen=True)
class Access:
    """Who can see an object (a person, a group, or all administrators), at which level, and why."""

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
    """Return every model whose objects have an owner and outlive what they were made for."""
    models = []
    for model in apps.get_models():
        owners = [field for field in model._meta.fields if field.name == "owner" and field.related_model is User]
        if owners and not getattr(model, "passing", False):
            models.append(model)
    return models


def shared_models() -> dict[str, type[Model]]:
    """Return the models that can be shared, by their kind; objects that belong to another one are shared with that one."""
    return {kind_of(model): model for model in owned_models() if not hasattr(model, "shared_through")}


def kind_of(model: Model | type[Model]) -> str:
    """Return what people and programs call a model: its `shared_as`, or the name of the class."""
    return str(getattr(model, "shared_as", model._meta.model_name))


def shared_object(user: User, kind: str, name: str, *, manage: bool = False) -> Any:
    """Return the object of this kind and name, with its owner. `kind` is one of `shared_models`.

    Raise NotFoundError for an unknown kind, and for an object that the user may not see; with `manage`, NotAllowedError to
    somebody who may see it but not change it.
    """
    model = shared_models().get(kind)
    if model is None:
        raise NotFoundError
    return get_visible(user, model._default_manager.select_related("owner"), manage=manage, name=name)


def access_list(obj: Model) -> list[Access]:
    """Return who can see the object, and why: its owner, people, groups, then administrators."""
    shared = permission_object(obj)
    change_permission = f"change_{shared._meta.model_name}"
    people: Any = get_users_with_perms(shared, attach_perms=True, with_group_users=False)
    groups: Any = get_groups_with_perms(shared, attach_perms=True)
    sizes = dict(Group.objects.filter(pk__in=[g.pk for g in groups]).annotate(n=Count("user")).values_list("pk", "n"))
    holders = [(shared.owner, "owner", _("Owner"))]
    for person in sorted(people, key=User.get_username):
        level = "manage" if change_permission in people[person] else "view"
        holders.append((person, level, _("Shared with this person")))
    entries = []
    for person, level, why in holders:
        name = person.get_username()
        if not person.is_active:
            name += " " + _("(account closed)")
        entries.append(Access(person, name, level, why))
    for group in sorted(groups, key=lambda group: group.name):
        level = "manage" if change_permission in groups[group] else "view"
        why = _("Shared with a group (members: %(count)s)") % {"count": sizes.get(group.pk, 0)}
        entries.append(Access(group, group_name(group), level, why))
    entries.append(Access(None, _("Administrators"), "all", _("Can view and manage everything")))
    return entries


def group_name(group: Group) -> str:
    """Return the group's name, or for a role's group, whom it stands for."""
    role_names: dict[str, str] = {
        Role.ADMIN: _("all administrators"),
        Role.MEMBER: _("all members"),
        Role.VIEWER: _("all viewers"),
    }
    return role_names.get(group.name, group.name)


@transaction.atomic
def set_access(*, user: User, obj: Model, to: User | Group, level: str) -> None:
    """Set what a person or a group may do with the object: none, view or manage; owner gives it away."""
    shared = permission_object(obj)
    if not owns(user, shared):
        raise OnlyOwnerError
    if level not in LEVELS:
        raise InvalidError(_("Choose none, view, manage or owner."), field="access")
    if level == "owner":
        _give_away(user, shared, to)
        return
    if to == shared.owner:
        raise InvalidError(_("The owner can already view and manage this. Nothing was changed."), field="to")
    revoke_access(shared, to=to)
    if level != "none":
        grant_access(shared, to=to, manage=level == "manage")
    record("share.end" if level == "none" else "share", user=user, obj=shared, to=str(to), access=level)


def require_possible_owner(user: User, obj: Model, to: User | Group) -> User:
    """Return whom `user` may make the owner of an object; raise OnlyOwnerError or InvalidError."""
    if not owns(user, obj):
        raise OnlyOwnerError
    if not isinstance(to, User) or not to.is_active or not to.can_create:
        raise InvalidError(_("Only a member or an administrator can own this. Nothing was changed."), field="to")
    return to


def _give_away(user: User, obj: Any, to: User | Group) -> None:
    """Change the owner of an object and of all that is shared through it; `obj` has an `owner`."""
    to = require_possible_owner(user, obj, to)
    previous_owner = obj.owner.get_username()
    revoke_access(obj, to=to)
    obj.owner = to
    obj.save(update_fields=["owner"])
    for model in owned_models():  # objects that belong to this one change their owner with it
        path = getattr(model, "shared_through", None)
        if path and model._meta.get_field(path).related_model is type(obj):
            model._default_manager.filter(**{path: obj}).update(owner=to)
    record("owner.change", user=user, obj=obj, to=to.get_username(), before=previous_owner)


def count_owned_objects(person: User) -> dict[str, int]:
    """Return how many objects of each kind the person owns, without kinds of which there are none."""
    counts = {}
    for kind, model in shared_models().items():
        count = model._default_manager.filter(owner=person).count()
        if count:
            counts[kind] = count
    return counts


@transaction.atomic
def hand_over(*, user: User, leaver: User, to: User) -> int:
    """Make another person the owner of everything that `leaver` owns; return the number of objects."""
    require_admin(user)
    if to == leaver:
        raise InvalidError(_("Choose another person. Nothing was changed."), field="to")
    objects = [obj for model in shared_models().values() for obj in model._default_manager.filter(owner=leaver)]
    for obj in objects:
        _give_away(user, obj, to)
    record("owner.hand_over", user=user, obj=leaver, to=to.get_username(), objects=len(objects))
    return len(objects)


def find_recipients(name: str) -> list[User | Group]:
    """Return whom a name stands for: a person, a group, or for `everyone` the groups of all roles.

    Raise InvalidError if there is no such person or group.
    """
    if name != EVERYONE:
        return [person_or_group(name)]
    groups: list[User | Group] = []
    for role in Role:
        # A role's group exists once somebody has had the role; whoever gets it later must see the object, too.
        group, _new = Group.objects.get_or_create(name=role)
        groups.append(group)
    return groups


def person_or_group(name: str) -> User | Group:
    """Return the person called `ada` or `person:ada` (which also reaches one called `everyone`), or the group `group:team`."""
    recipient: User | Group | None
    name = name.removeprefix("person:")
    if name.startswith("group:"):
        recipient = Group.objects.filter(name=name.removeprefix("group:")).first()
    else:
        recipient = User.objects.filter(username=name, is_active=True).first()
    if recipient is None:
        raise InvalidError(_("There is no such person or group."), field="to")
    return recipient
