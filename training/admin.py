from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.admin import ModelAdmin

from accounts.http import SignedInRequest
from web.admin_site import ReadOnly

from . import services
from .models import Task, WrongStateError


@admin.register(Task)
class TaskAdmin(ReadOnly, ModelAdmin):
    """Read-only list of tasks. Its actions call the same services as page and API."""

    list_display = ["experiment", "owner", "status", "stage", "step", "total_steps", "attempt", "deaths", "created_at"]
    list_filter = ["status", "stage", "device_kind", "created_at"]
    search_fields = ["experiment__name", "owner__username"]
    list_select_related = ["experiment", "owner"]
    actions = ["cancel_tasks", "resume_tasks"]

    @admin.action(description=gettext_lazy("Cancel"))
    def cancel_tasks(self, request: SignedInRequest, queryset: QuerySet[Task]) -> None:
        self.change_each(request, queryset, services.cancel)

    @admin.action(description=gettext_lazy("Resume"))
    def resume_tasks(self, request: SignedInRequest, queryset: QuerySet[Task]) -> None:
        self.change_each(request, queryset, services.resume)

    def change_each(self, request: SignedInRequest, queryset: QuerySet[Task], change: Callable[..., Task]) -> None:
        """Cancel or resume the tasks by `change`, and tell which ones were not in a state for it."""
        changed = 0
        for task in queryset:
            try:
                change(user=request.user, task=task)
                changed += 1
            except WrongStateError:
                messages.warning(request, _("{task} was not changed.").format(task=task))
        messages.info(request, ngettext("%d task changed.", "%d tasks changed.", changed) % changed)
