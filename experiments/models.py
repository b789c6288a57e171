from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils.translation import gettext_lazy as _


class Experiment(models.Model):
    """What a run is called and what it left. Its state is its task's (`experiment.task`, a one-to-one of training.Task)."""

    name = models.CharField(_("name"), max_length=80, unique=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="experiments")
    version = models.ForeignKey("datasets_app.Version", models.PROTECT, null=True, related_name="experiments")
    dataset_name = models.CharField(
        _("dataset"), max_length=120, db_index=True
    )  # as it was asked for: name@version or a hub id
    dataset_hash = models.CharField(max_length=64, blank=True)
    base_model = models.CharField(_("base model"), max_length=120, db_index=True)
    config = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)  # metrics.json; empty until the run has succeeded
    # of the best checkpoint; columns with an index, so that a list of 100,000 sorts by them
    accuracy = models.FloatField(_("accuracy"), null=True, db_index=True)
    macro_f1 = models.FloatField(_("macro F1"), null=True, db_index=True)
    eval_loss = models.FloatField(_("evaluation loss"), null=True, db_index=True)
    tokens_per_second = models.FloatField(null=True, db_index=True)
    runtime_s = models.FloatField(null=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("experiments:detail", args=[self.name])

    @property
    def folder(self) -> Path:
        return Path(settings.RESULTS_DIR) / self.name

    @property
    def final_model(self) -> Path:
        return self.folder / "artifacts" / "final_model"

    @property
    def is_ready(self) -> bool:
        """True when the run has succeeded, so that its model can be loaded."""
        return self.accuracy is not None

    @property
    def labels(self) -> list[str]:
        found: Any = self.metrics.get("labels", [])
        return list(found)
