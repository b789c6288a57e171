from django.db import models
from django.utils.translation import gettext_lazy as _


class Worker(models.Model):
    """A worker process and its last report. `seen_at` is by the database's clock, so that no two clocks are compared."""

    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    kind = models.CharField(_("queue"), max_length=5)  # the device kind whose queue it serves
    device = models.CharField(_("device"), max_length=120, blank=True)
    version = models.CharField(_("version"), max_length=20)
    started_at = models.DateTimeField(_("started"))
    seen_at = models.DateTimeField(_("last seen"), db_index=True)
    figures = models.JSONField(default=dict)  # machine.figures()

    class Meta:
        ordering = ["host", "pid"]
        verbose_name, verbose_name_plural = _("worker"), _("workers")
        constraints = [models.UniqueConstraint(fields=["host", "pid"], name="one_row_per_worker_process")]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
