"""Work on data that goes into the queue: submit it, cancel it."""

from functools import partial
from typing import Any

from django.db import transaction

from accounts.models import User
from accounts.permissions import require_creator
from audit.services import record
from datasets_app.models import DataTask, Version
from datasets_app.selectors import require_single_labels
from datasets_app.versions.creation import find_own_dataset
from web.disk import require_disk_space
from work import queue
from work.models import Status


def submit(
    *,
    user: User,
    kind: DataTask.Kind,
    name: str,
    version: Version | None = None,
    arguments: dict[str, Any] | None = None,
) -> DataTask:
    """Put work on data into the queue, or return the person's unfinished task that does the same."""
    require_creator(user)
    require_disk_space()
    find_own_dataset(user, name)
    if version and kind == DataTask.Kind.NOISE:
        require_single_labels(version)
    arguments = arguments or {}
    unfinished = DataTask.objects.filter(
        kind=kind,
        name=name,
        version=version,
        arguments=arguments,
        owner=user,
        status__in=[Status.PENDING, Status.STARTED],
    ).first()
    if unfinished:
        return unfinished
    with transaction.atomic():
        task = DataTask.objects.create(owner=user, kind=kind, name=name, version=version, arguments=arguments)
        record(f"dataset.{kind}.submit", user=user, obj=task, task_id=str(task.pk))
        transaction.on_commit(partial(queue.send, DataTask, task.pk))
    return task


@transaction.atomic
def cancel(*, user: User, task: DataTask) -> DataTask:
    """Cancel a task: a waiting one ends at once, a running one within a moment. Nothing is stored."""
    task.cancel()
    record(f"dataset.{task.kind}.cancel", user=user, obj=task, task_id=str(task.pk))
    return task
