"""The state of a run as a person sees it: its status, and whether a finished one has learned."""

from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from work.models import Status


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
NOT_LEARNED = State("warning", _("did not learn"))


def state_of(status: str, learned: bool | None) -> State:
    """Return the state of a run. `learned` is that of its experiment, None where nobody knows."""
    if status == Status.SUCCESS and learned is False:
        return NOT_LEARNED
    return State(CODES[Status(status)], Status(status).label)
