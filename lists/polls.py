"""What the polls of lists share: which tasks a list asks about."""

from contextlib import suppress
from uuid import UUID

from django.http import HttpRequest

MOST_TASKS = 100  # of one poll


def requested_tasks(request: HttpRequest) -> list[UUID]:
    """Return the ids of the tasks that the address of a poll names (`task`)."""
    tasks = []
    for text in request.GET.getlist("task")[:MOST_TASKS]:
        with suppress(ValueError):  # what is no id names no task
            tasks.append(UUID(text))
    return tasks
