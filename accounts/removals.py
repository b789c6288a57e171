"""Delete an object so that it can be undone: nobody sees it from now on, and a worker removes it a little later.

A model takes part with `removed_by`, the dotted name of the function that deletes an object for good. Until then its row and
its files stay, its name is taken, and a crash loses nothing. `restored_by`, if a model has it, names what is called with an
object that is brought back.
"""

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from audit.services import record
from web.disk import has_disk_space
from web.errors import ConflictError, LorasiteError, NotFoundError
from web.undo import TooLateError, offer_undo, undoes

from .models import Removal, User
from .permissions import can_manage
from .sharing import kind_of

log = logging.getLogger(__name__)
REMOVED_AFTER = timedelta(minutes=2)


@transaction.atomic
def remove(*, user: User, obj: Any) -> Removal | None:
    """Hide an object that the user may delete; return what can be undone. On a full disk, delete it at once: None."""
    if not has_disk_space():
        import_string(obj.removed_by)(user, obj)
        return None
    removal = Removal.objects.create(
        content_type=ContentType.objects.get_for_model(obj),
        object_id=obj.pk,
        user=user,
        due_at=timezone.now() + REMOVED_AFTER,
    )
    record(f"{kind_of(obj)}.remove", user=user, obj=obj)
    return removal


def show_removals(request: HttpRequest, removals: Iterable[Removal | None], message: str) -> None:
    """Show that objects are deleted, with a button that brings them back unless a full disk left no time for that."""
    pks = [removal.pk for removal in removals if removal]
    if pks:
        offer_undo(request, message, "removal", pks=pks)
    else:
        messages.success(request, message)


@undoes("removal")
@transaction.atomic
def restore(user: User, pks: list[int]) -> str:
    """Bring back what was removed together: all of it, or nothing if it is too late for one."""
    names = [str(restore_one(user, pk)) for pk in pks]
    message = ngettext("%(names)s is back.", "%(names)s are back.", len(names))
    return message % {"names": ", ".join(names)}


def restore_one(user: User, pk: int) -> Model:
    removal = Removal.objects.select_for_update().filter(pk=pk, user=user).first()
    obj = removal and removal.find_object()
    if removal is None or obj is None:
        raise TooLateError
    removal.delete()
    if not can_manage(user, obj):  # asked once it is visible again; the error hides it as before
        raise NotFoundError
    if restored_by := getattr(obj, "restored_by", ""):
        import_string(restored_by)(obj)
    record(f"{kind_of(obj)}.restore", user=user, obj=obj)
    return obj


def require_free_name(obj: Model) -> None:
    """Raise ConflictError if the object that has a name is about to be removed: nothing may be added to it."""
    content_type = ContentType.objects.get_for_model(obj)
    if Removal.objects.filter(content_type=content_type, object_id=obj.pk).exists():
        message = _("%(name)s was deleted a moment ago. Choose another name, or try again in two minutes.")
        raise ConflictError(message % {"name": obj}, field="name")


def carry_out_due_removals() -> None:
    """Remove for good what was deleted long enough ago. Runs in every worker; several may run at once."""
    for removal in Removal.objects.filter(due_at__lte=Now()).select_related("user"):
        try:
            carry_out(removal)
        except LorasiteError as error:  # something uses it since: it comes back
            log.warning("%s could not be removed: %s", removal, error)
            removal.delete()
        except OSError:
            log.exception("%s could not be removed; trying again.", removal)


@transaction.atomic
def carry_out(removal: Removal) -> None:
    """Remove one object; nothing happens if it was restored, or if another worker was first."""
    deleted, _by_class = Removal.objects.filter(pk=removal.pk).delete()
    obj: Any = removal.find_object()
    if deleted and obj is not None:
        import_string(obj.removed_by)(removal.user, obj)
