"""What a message tells its owner when it could not be sent."""

from django.utils.translation import gettext_lazy as _

from work.models import JobMessages

MESSAGES = JobMessages(
    error_kept="",
    known_error_next="",
    unexpected_error_next=_("Send a test message. If it fails again, give your administrator the error number."),
    worker_lost_kept="",
    worker_lost_next=_("Send a test message."),
    cancelled=_("Cancelled. The message was not sent."),
    worker_stopping=_("The worker is stopping. The message is sent by the next worker."),
    worker_gone=_("The worker of this message is gone. The message goes back to the queue."),
)
