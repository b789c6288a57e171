from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from unfold.admin import ModelAdmin

from web.admin_site import ReadOnly

from .models import Worker
from .redis_state import RedisState, redis_state


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):
    """Who serves the queues, below what RQ itself holds in Redis. The page System shows both live."""

    list_display = ["__str__", "kind", "device", "version", "started_at", "seen_at"]
    list_filter = ["kind", "version"]
    search_fields = ["host", "device"]
    list_before_template = "monitoring/admin_queues.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        found = redis_state()
        shown = {"redis": found, "queue_table": _queues(found), "worker_table": _workers(found)}
        return super().changelist_view(request, {**(extra_context or {}), **shown})


def _queues(found: RedisState) -> dict[str, Any]:
    heads = [
        _("Queue"), _("Jobs waiting in Redis"), _("Jobs taken"), _("Jobs failed"), _("Waiting in the database"),
        _("Running in the database"),
    ]  # fmt: skip
    return {
        "headers": heads,
        "rows": [[q.name, q.waiting, q.taken, q.failed, q.waiting_rows, q.running_rows] for q in found.queues],
    }


def _workers(found: RedisState) -> dict[str, Any]:
    return {
        "headers": [_("RQ worker"), _("Queue"), _("State"), _("Job in hand")],
        "rows": [list(w) for w in found.workers],
    }
