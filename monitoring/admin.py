from django.contrib import admin
from unfold.admin import ModelAdmin

from accounts.admin_site import ReadOnly

from .models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):
    """Who serves the queues. The page System shows it live."""

    list_display = ["__str__", "kind", "device", "version", "started_at", "seen_at"]
    list_filter = ["kind", "version"]
    search_fields = ["host", "device"]
