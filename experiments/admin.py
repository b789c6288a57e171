from django.contrib import admin
from unfold.admin import ModelAdmin

from accounts.admin_site import ReadOnly

from .models import Experiment


@admin.register(Experiment)
class ExperimentAdmin(ReadOnly, ModelAdmin):
    """What runs left. A record is evidence, so it is only shown; the page deletes, through the services."""

    list_display = ["name", "owner", "state", "dataset_name", "base_model", "accuracy", "macro_f1", "created_at"]
    list_filter = ["task__status", "base_model", "created_at"]
    list_select_related = ["owner", "task"]
    search_fields = ["name", "dataset_name", "base_model", "owner__username"]
    date_hierarchy = "created_at"

    @admin.display(description="status", ordering="task__status")
    def state(self, experiment: Experiment) -> str:
        task = getattr(experiment, "task", None)
        return str(task.get_status_display()) if task else "–"
