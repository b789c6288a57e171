"""What the polls of lists share: which tasks a list asks about."""

from uuid import UUID

from django.http import HttpRequest

MOST_TASKS = 100  # of one poll


def requested_tasks(request: HttpRequest) -> list[UUID]:
    """Return the ids of the tasks that the address of a poll names (`task`)."""
    return [UUID(text) for text in request.GET.getlist("task")[:MOST_TASKS] if is_uuid(text)]


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
