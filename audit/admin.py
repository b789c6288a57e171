from django.contrib import admin
from unfold.admin import ModelAdmin

from web.admin_site import ReadOnly

from .models import Entry


@admin.register(Entry)
class EntryAdmin(ReadOnly, ModelAdmin):
    list_display = ["at", "username", "action", "object_type", "object_id", "result", "address"]
    list_filter = ["action", "result", "at"]
    search_fields = ["username", "action", "object_id"]
    show_full_result_count = False
    ordering = ["-pk"]
