"""Everything that changes tags, notes and saved views."""

from collections.abc import Iterable

from django.db import transaction
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from engine.names import name_key, normalise_name
from web.errors import InvalidError
from web.names import require_valid_name

from .models import LONGEST_NOTE, LONGEST_VIEW_NAME, Annotated, SavedView, Tag
from .queries import lean_query

MOST_TAGS = 20  # of one object
MOST_VIEWS = 20  # of one person and list
LONGEST_QUERY = 1000


@transaction.atomic
def add_tag(*, user: User, obj: Annotated, name: str) -> None:
    """Put a tag on an object; one that it has already, in whatever case, changes nothing."""
    name = normalise_name(name.strip())
    key = name_key(name)
    require_valid_name(name, field="tag", reserved=())
    locked = type(obj)._default_manager.select_for_update().get(pk=obj.pk)
    if locked.tags.filter(name_key=key).exists():
        return
    if locked.tags.count() >= MOST_TAGS:
        message = _("An object has at most %(most)s tags. Remove one first; nothing was changed.")
        raise InvalidError(message % {"most": MOST_TAGS}, field="tag")
    Tag.objects.create(target=locked, name=name, name_key=key)
    record("tag.add", user=user, obj=obj, tag=name)


@transaction.atomic
def remove_tag(*, user: User, obj: Annotated, name: str) -> None:
    deleted, _by_model = obj.tags.filter(name_key=name_key(name)).delete()
    if deleted:
        record("tag.remove", user=user, obj=obj, tag=name)


@transaction.atomic
def set_tags(*, user: User, obj: Annotated, names: Iterable[str]) -> None:
    """Give an object exactly these tags."""
    wanted = {name_key(name): name for name in names}
    for tag in obj.tags.all():
        if tag.name_key not in wanted:
            remove_tag(user=user, obj=obj, name=tag.name)
    for name in wanted.values():
        add_tag(user=user, obj=obj, name=name)


@transaction.atomic
def set_note(*, user: User, obj: Annotated, note: str) -> None:
    note = note.replace("\r\n", "\n").strip()
    if len(note) > LONGEST_NOTE:
        message = _("A note has at most %(most)s characters. Nothing was changed.")
        raise InvalidError(message % {"most": LONGEST_NOTE}, field="note")
    if note != obj.note:
        obj.note = note
        obj.save(update_fields=["note"])
        record("note.change", user=user, obj=obj)


@transaction.atomic
def save_view(*, user: User, kind: str, name: str, query: str) -> SavedView:
    """Keep the address of a list under a name that the person has not given to another view of it."""
    name = " ".join(normalise_name(name).split())
    if not 1 <= len(name) <= LONGEST_VIEW_NAME:
        message = _("Give the view a name of 1 to %(most)s characters.")
        raise InvalidError(message % {"most": LONGEST_VIEW_NAME}, field="name")
    lean = lean_query(QueryDict(query), {}, without=("page",)).urlencode()
    if len(lean) > LONGEST_QUERY:
        raise InvalidError(_("This search is too long to be saved."), field="query")
    if not lean:
        raise InvalidError(_("There is nothing to save here: search, filter or sort the list first."), field="query")
    views = user.saved_views.select_for_update().filter(kind=kind)
    if views.filter(name_key=name_key(name)).exists():
        message = _("You have a view called “%(name)s” already. Choose another name, or remove that one first.")
        raise InvalidError(message % {"name": name}, field="name")
    if views.count() >= MOST_VIEWS:
        message = _("A list has at most %(most)s views. Remove one first.")
        raise InvalidError(message % {"most": MOST_VIEWS}, field="name")
    view = SavedView.objects.create(person=user, kind=kind, name=name, name_key=name_key(name), query=lean)
    record("view.save", user=user, obj=view, list=kind)
    return view


@transaction.atomic
def remove_view(*, user: User, view: SavedView) -> None:
    record("view.remove", user=user, obj=view, list=view.kind)
    view.delete()
