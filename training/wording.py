"""What a training run, and a benchmark for an estimate, tell their owner when they do not simply succeed."""

from django.utils.translation import gettext_lazy as _

from work.models import JobMessages

MESSAGES = JobMessages(
    error_kept=_("The configuration, the log and all checkpoints written so far are kept."),
    known_error_next=_("Fix what the message names and train again, or resume this run once the cause is gone."),
    unexpected_error_next=_(
        "Resume the run. If it fails again, give your administrator the error number; the server's log has the details."
    ),
    worker_lost_kept=_("The log and all checkpoints written so far are kept."),
    worker_lost_next=_(
        "Check the last lines of the log. Resuming may work with less memory per step (a smaller batch)."
    ),
    cancelled=_("Cancelled. The last checkpoint is kept; the run can be resumed."),
    worker_stopping=_("The worker is stopping. The run is saved and waits for the next worker."),
    worker_gone=_("The worker of this run is gone. The run goes back to the queue."),
    process_killed=_(
        "The training process was killed, probably because memory ran out (SIGKILL, peak {peak:.0f} MiB). "
        "The checkpoints are kept and the run will be retried."
    ),
    error_kept_by_code={"folder_gone": _("The configuration, the curves and the log on the run's page are kept.")},
)

TIMING_MESSAGES = JobMessages(
    error_kept=_("Nothing was queued."),
    known_error_next=_("Fix what the message names, then estimate again."),
    unexpected_error_next=_("Estimate again. If it fails again, give your administrator the error number."),
    worker_lost_kept=_("Nothing was queued."),
    worker_lost_next=_("The run may need more memory than there is. Try a smaller batch or shorter texts."),
    cancelled=_("Cancelled. Nothing was queued."),
    worker_stopping=_("The worker is stopping. The measurement starts again on the next worker."),
    worker_gone=_("The worker of this measurement is gone. The measurement goes back to the queue."),
)
