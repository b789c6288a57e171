"""Reads of tasks."""

from uuid import UUID

from django.db.models import QuerySet

from accounts.models import User
from accounts.permissions import get_visible, visible

from .models import Status, Task


def tasks_for(user: User) -> QuerySet[Task]:
    return visible(user, Task.objects.select_related("experiment", "owner"))


def task_for(user: User, task_id: UUID) -> Task:
    return get_visible(user, Task.objects.select_related("experiment__version__dataset", "owner"), pk=task_id)


def running_count(user: User) -> int:
    return tasks_for(user).filter(status__in=[Status.PENDING, Status.STARTED]).count()
