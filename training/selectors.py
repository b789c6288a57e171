"""Queries of tasks and their logs."""

from math import ceil
from uuid import UUID

from django.db.models import F, Max, Q, QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_visible, visible
from accounts.quotas import counts_usage, limit_of
from lists.queries import require_one_of
from lists.selectors import of_owner
from web.charts import MOST_POINTS

from .models import Point, Status, Task


def visible_tasks(user: User) -> QuerySet[Task]:
    return visible(user, Task.objects.select_related("experiment", "owner"))


def search(user: User, *, status: str = "", owner: str = "") -> QuerySet[Task]:
    """Return the runs that the person may see, the newest first; `owner` is empty, or "me" for the person's own."""
    require_one_of(status, ("", *Status.values), "status")
    tasks = visible_tasks(user).order_by("-created_at")
    if status:
        tasks = tasks.filter(status=status)
    return of_owner(tasks, user, owner)


def task_for(user: User, task_id: UUID, *, manage: bool = False) -> Task:
    """Return the task with its experiment and data; with `manage`, only to those who may cancel and resume it."""
    tasks = Task.objects.select_related("experiment__version__dataset", "owner")
    return get_visible(user, tasks, manage=manage, pk=task_id)


@counts_usage("running")
def started_by(user: User) -> int:
    return Task.objects.filter(owner=user, status=Status.STARTED).count()


@counts_usage("queued")
def waiting_of(user: User) -> int:
    return Task.objects.filter(owner=user, status=Status.PENDING).count()


def running_tasks(user: User) -> QuerySet[Task]:
    """Return the runs that the person may see and that are queued or running."""
    return visible_tasks(user).filter(status__in=[Status.PENDING, Status.STARTED])


def note_for(task: Task) -> str:
    """Return a sentence on what the status alone does not say; empty if it says everything."""
    if task.status == Status.STARTED and task.cancel_requested:
        return _("Cancelling: the current step is finished and saved first.")
    if task.status == Status.STARTED and task.deaths:
        return _("Retried after its worker died ({count} times).").format(count=task.deaths)
    if task.status != Status.PENDING:
        return ""
    if task.sent_at is not None:
        return place_in_queue(task)
    most = limit_of(task.owner, "running")
    if most:
        return _("Waiting until fewer than {limit} of your runs are in progress, which is your limit.").format(
            limit=most
        )
    return _("Waiting for the queue. The run is sent as soon as the queue is back.")


def place_in_queue(task: Task) -> str:
    """Return how many runs start before this one, or what it waits for if none does."""
    tasks = Task.objects.filter(device_kind=task.device_kind)
    ahead = tasks.filter(status=Status.PENDING, created_at__lt=task.created_at).count()
    if ahead:
        return _("Waiting in the queue. Runs ahead: {count}.").format(count=ahead)
    if tasks.filter(status=Status.STARTED).exists():
        return _("Next in the queue. It starts as soon as a run in progress ends.")
    return _("Next in the queue.")


def points_to_draw(task: Task) -> list[Point]:
    """Return the points of a run's curves: of a long run about MOST_POINTS of evenly spaced steps, and all evaluations."""
    points = task.points.all()
    if points.count() <= 2 * MOST_POINTS:
        return list(points)
    last = points.order_by("-step").values_list("step", flat=True)[0]
    spacing = ceil(last / MOST_POINTS)
    # The last step of each stretch, so that the newest point of a run in progress is always there.
    steps = points.order_by().values(stretch=F("step") / spacing).annotate(last=Max("step")).values("last")
    return list(points.filter(Q(step__in=steps) | Q(eval_loss__isnull=False)))
