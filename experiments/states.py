"""The state of a run as a person sees it: its status, and whether a finished one has learned."""

from django.utils.translation import gettext_lazy as _

from work.models import Status
from work.states import State, state_of_status

NOT_LEARNED = State("warning", _("did not learn"))


def state_of(status: str, learned: bool | None) -> State:
    """Return the state of a run. `learned` is that of its experiment, None where nobody knows."""
    if status == Status.SUCCESS and learned is False:
        return NOT_LEARNED
    return state_of_status(status)
