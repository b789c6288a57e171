"""Admin pages of datasets, read-only."""

from django.contrib import admin
from unfold.admin import ModelAdmin, TabularInline

from web.admin_site import CountsVersions, ReadOnly

from .models import Dataset, Finding, Version


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
class DatasetAdmin(ReadOnly, CountsVersions, ModelAdmin):
    """Datasets and their versions are read-only, because a run needs its dataset to be reproducible."""

    list_display = ["name", "owner", "version_count", "description", "created_at"]
    list_select_related = ["owner"]
    list_filter = ["created_at"]
    search_fields = ["name", "description", "owner__username"]
    inlines = [VersionInline]


@admin.register(Version)
class VersionAdmin(ReadOnly, ModelAdmin):
    list_display = ["__str__", "rows", "author", "note", "created_at"]
    list_select_related = ["dataset", "author"]
    list_filter = ["created_at"]
    search_fields = ["dataset__name", "hash", "author__username"]
    inlines = [FindingInline]
