from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from unfold.admin import ModelAdmin

from web.admin_site import ReadOnly

from .models import Worker
from .redis_state import redis_state


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):
    """Workers as the database knows them, below the queues and workers that RQ has in Redis. The System page shows both live."""

    list_display = ["__str__", "kind", "device", "version", "started_at", "seen_at"]
    list_filter = ["kind", "version"]
    search_fields = ["host", "device"]
    list_before_template = "monitoring/admin_queues.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        redis = redis_state()
        queue_table = {
            "headers": [
                _("Queue"), _("Jobs waiting in Redis"), _("Jobs in progress"), _("Failed jobs"),
                _("Waiting in the database"), _("Running in the database"),
            ],
            "rows": [[q.name, q.waiting, q.taken, q.failed, q.waiting_rows, q.running_rows] for q in redis.queues],
        }  # fmt: skip
        worker_table = {
            "headers": [_("RQ worker"), _("Queue"), _("State"), _("Current job")],
            "rows": [list(worker) for worker in redis.workers],
        }
        tables = {"redis": redis, "queue_table": queue_table, "worker_table": worker_table}
        return super().changelist_view(request, {**(extra_context or {}), **tables})
