from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin, TabularInline

from accounts.http import SignedInRequest
from web.admin_site import CountsVersions, ReadOnly

from .models import Experiment, ModelVersion, RegisteredModel
from .registry import services


@admin.register(Experiment)
class ExperimentAdmin(ReadOnly, ModelAdmin):
    """Results of runs, read-only because they are evidence. Experiments are deleted on their own page, by the services."""

    list_display = [
        "name",
        "owner",
        "state",
        "dataset_name",
        "base_model",
        "task_type",
        "score",
        "macro_f1",
        "created_at",
    ]
    list_filter = ["task__status", "task_type", "base_model", "created_at"]
    list_select_related = ["owner", "task"]
    search_fields = ["name", "dataset_name", "base_model", "owner__username"]
    list_per_page = 25

    def get_queryset(self, request: HttpRequest) -> QuerySet[Experiment]:
        return super().get_queryset(request).defer("metrics", "config")

    @admin.display(description="status", ordering="task__status")
    def state(self, experiment: Experiment) -> str:
        task = getattr(experiment, "task", None)
        return str(task.get_status_display()) if task else "–"


class ModelVersionInline(ReadOnly, TabularInline):
    model = ModelVersion
    fk_name = "model"
    fields = ["number", "accuracy", "macro_f1", "experiment_name", "author", "note"]
    extra = 0


@admin.register(RegisteredModel)
class RegisteredModelAdmin(ReadOnly, CountsVersions, ModelAdmin):
    """Registered models with their versions, read-only. Models are edited, shared and deleted on their own page."""

    list_display = [
        "name",
        "owner",
        "version_count",
        "language",
        "base_model",
        "task_type",
        "score",
        "macro_f1",
        "updated_at",
    ]
    list_filter = ["task_type", "language", "base_model", "updated_at"]
    list_select_related = ["owner"]
    search_fields = ["name", "summary", "owner__username"]
    fields = ["name", "owner", "summary", "language", "base_model", "task_type", "score", "macro_f1", "updated_at"]
    inlines = [ModelVersionInline]


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnly, ModelAdmin):
    list_display = ["__str__", "author", "task_type", "score", "macro_f1", "dataset_name", "checkpoint", "created_at"]
    list_filter = ["task_type", "language", "checkpoint", "created_at"]
    list_select_related = ["model", "author"]
    search_fields = ["model__name", "experiment_name", "dataset_name", "author__username"]
    actions = ["make_champion"]

    @admin.action(description=gettext_lazy("Point the alias champion at it"))
    def make_champion(self, request: SignedInRequest, queryset: QuerySet[ModelVersion]) -> None:
        for version in queryset.select_related("model"):
            services.set_alias(user=request.user, version=version, name="champion")
            alias = f"{version.model}@champion"
            messages.info(request, _("%(alias)s now points to %(version)s.") % {"alias": alias, "version": version})
