"""What a run tells its person when it does not simply end well."""

from django.utils.translation import gettext_lazy as _

from work.models import Words

WORDS = Words(
    kept=_("The configuration, the log and the checkpoints that were written are kept."),
    after_known=_("Change what the message names and train again, or resume this run once the cause is gone."),
    after_unforeseen=_(
        "Resume the run; if it breaks again, tell your administrator the number: the server's log has more."
    ),
    kept_by_lost=_("The log and the checkpoints that were written are kept."),
    after_lost=_("Look at the log's last lines. With less memory per step (a smaller batch) it may go on: resume it."),
    cancelled=_("Cancelled. The last checkpoint is kept; the run can be resumed."),
    given_back=_("The worker stops; the run is saved and waits for the next one."),
    taken_back=_("The worker of this run is gone; the run goes back to the queue."),
    killed=_(
        "The system killed the training process, as it does when memory runs out (SIGKILL); "
        "its peak was {peak:.0f} MiB. The checkpoints are kept and the run is tried again."
    ),
    kept_after={"folder_gone": _("The configuration, the curves and the log on the run's page are kept.")},
)

TIMING_WORDS = Words(
    kept=_("Nothing was queued."),
    after_known=_("Change what the message names, then estimate again."),
    after_unforeseen=_("Estimate again; if it breaks again, tell your administrator the number."),
    kept_by_lost=_("Nothing was queued."),
    after_lost=_("The run may need more memory than there is. Try a smaller batch or shorter texts."),
    cancelled=_("Cancelled. Nothing was queued."),
    given_back=_("The worker stops; the measurement begins again on the next one."),
    taken_back=_("The worker of this measurement is gone; it goes back to the queue."),
)
