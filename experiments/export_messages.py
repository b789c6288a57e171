"""What an export tells the person who asked for it when it does not simply succeed."""

from django.utils.translation import gettext_lazy as _

from work.models import JobMessages

MESSAGES = JobMessages(
    error_kept=_("Nothing was stored; the model is unchanged."),
    known_error_next=_("Fix what the message names, then export again."),
    unexpected_error_next=_("Export again. If it fails again, give your administrator the error number."),
    worker_lost_kept=_("Nothing was stored; the model is unchanged."),
    worker_lost_next=_("The export may need more memory than there is. End other programs first, then export again."),
    cancelled=_("Cancelled. Nothing was stored."),
    worker_stopping=_("The worker is stopping. The export starts again on the next worker."),
    worker_gone=_("The worker of this export is gone. The export goes back to the queue."),
)
