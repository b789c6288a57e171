"""Reads of tasks."""

from uuid import UUID

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_managed, get_visible, visible
from accounts.quotas import counts, limit
from web.errors import Invalid

from .models import LogLine, Status, Task

LOG_PAGE = 500


def tasks_for(user: User) -> QuerySet[Task]:
    return visible(user, Task.objects.select_related("experiment", "owner"))


def search(user: User, *, status: str = "", owner: str = "") -> QuerySet[Task]:
    """Runs that the person may see, the newest first; `owner` is empty, or "me" for one's own."""
    if status not in ("", *Status.values):
        raise Invalid(_("status is one of: {names}.").format(names=", ".join(Status.values)), field="status")
    if owner not in ("", "me"):
        raise Invalid(_("owner is empty or me."), field="owner")
    found = tasks_for(user).order_by("-created_at")
    found = found.filter(status=status) if status else found
    return found.filter(owner=user) if owner else found


def task_for(user: User, task_id: UUID) -> Task:
    return get_visible(user, _whole(), pk=task_id)


def managed_task(user: User, task_id: UUID) -> Task:
    """The task if the person may cancel and resume it."""
    return get_managed(user, _whole(), pk=task_id)


def manages(user: User, task: Task) -> bool:
    return visible(user, Task.objects.filter(pk=task.pk), manage=True).exists()


def _whole() -> QuerySet[Task]:
    return Task.objects.select_related("experiment__version__dataset", "owner")


@counts("running")
def started_by(user: User) -> int:
    return Task.objects.filter(owner=user, status=Status.STARTED).count()


@counts("queued")
def waiting_of(user: User) -> int:
    return Task.objects.filter(owner=user, status=Status.PENDING).count()


def running_count(user: User) -> int:
    return tasks_for(user).filter(status__in=[Status.PENDING, Status.STARTED]).count()


def log_after(task: Task, after: int = 0) -> list[LogLine]:
    """The next lines of the run's log, oldest first."""
    return list(task.log.filter(pk__gt=after)[:LOG_PAGE])


def note_for(task: Task) -> str:
    """What is special about the task's state, in a sentence; empty when the status says it all."""
    if task.status == Status.STARTED and task.cancel_requested:
        return _("Cancelling: the step is finished and saved first.")
    if task.status == Status.PENDING and task.sent_at is None and (most := limit(task.owner, "running")):
        return _("Waiting until fewer than {limit} of your runs go on, which is your limit.").format(limit=most)
    if task.status == Status.PENDING and task.sent_at is None:
        return _("Waiting for the queue; it is sent by itself as soon as the queue answers.")
    if task.status == Status.PENDING:
        return _("Waiting in line; {count} before it.").format(count=place_in_line(task))
    if task.status == Status.STARTED and task.deaths:
        return _("Tried again after its worker died ({count} times).").format(count=task.deaths)
    return ""


def place_in_line(task: Task) -> int:
    """How many tasks of the same queue wait before this one."""
    return Task.objects.filter(
        status=Status.PENDING, device_kind=task.device_kind, created_at__lt=task.created_at
    ).count()
