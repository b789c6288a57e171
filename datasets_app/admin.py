from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from .models import Dataset, Finding, Version


class ReadOnly:
    """Versions are immutable, so the admin only shows them; changes go through the services."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class VersionInline(ReadOnly, TabularInline):
    model = Version
    fk_name = "dataset"
    fields = ["number", "rows", "hash", "author", "note"]
    extra = 0


class FindingInline(ReadOnly, TabularInline):
    model = Finding
    fields = ["code", "severity", "count", "message"]
    extra = 0


@admin.register(Dataset)
class DatasetAdmin(ReadOnly, ModelAdmin):
    list_display = ["name", "owner", "created_at"]
    search_fields = ["name", "owner__username"]
    inlines = [VersionInline]


@admin.register(Version)
class VersionAdmin(ReadOnly, ModelAdmin):
    list_display = ["__str__", "rows", "author", "created_at"]
    list_select_related = ["dataset", "author"]
    search_fields = ["dataset__name", "hash"]
    inlines = [FindingInline]
