"""The state of a task as a person sees it: what its chip shows."""

from typing import NamedTuple

from django.utils.functional import Promise

from .models import Status


class State(NamedTuple):
    """`code` chooses icon and colour (data-status in the stylesheet); `title` is the word beside them."""

    code: str
    title: str | Promise


CODES = {
    Status.PENDING: "queued",
    Status.STARTED: "running",
    Status.SUCCESS: "success",
    Status.FAILURE: "failed",
    Status.CANCELLED: "cancelled",
}


def state_of_status(status: str) -> State:
    return State(CODES[Status(status)], Status(status).label)
