"""Shapes of the datasets API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from .models import Dataset, Finding, Version


class _Counts(serializers.DictField):
    """Rows by name of the label or split."""

    child = serializers.IntegerField()


class UploadSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    file = serializers.FileField(allow_empty_file=True)
    text_column = serializers.CharField(required=False, allow_blank=True)
    label_column = serializers.CharField(required=False, allow_blank=True)
    encoding = serializers.CharField(required=False, allow_blank=True)
    delimiter = serializers.CharField(required=False, allow_blank=True, max_length=1, trim_whitespace=False)
    note = serializers.CharField(required=False, allow_blank=True, max_length=300)


class StoredSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    labels = _Counts()
    report_url = serializers.CharField()


class VersionSerializer(serializers.ModelSerializer[Version]):
    version = serializers.IntegerField(source="number")
    labels = _Counts()
    splits = _Counts()
    parent = serializers.SerializerMethodField()  # type: ignore[assignment]  # DRF has an attribute of that name

    class Meta:
        model = Version
        fields = ["version", "hash", "rows", "labels", "splits", "parent", "note"]

    def get_parent(self, version: Version) -> int | None:
        """Number of the version that this one follows."""
        return version.parent.number if version.parent else None


class FindingSerializer(serializers.ModelSerializer[Finding]):
    examples = serializers.ListField(child=serializers.DictField())

    class Meta:
        model = Finding
        fields = ["code", "severity", "count", "message", "examples"]


class ReportSerializer(serializers.ModelSerializer[Version]):
    version = serializers.IntegerField(source="number")
    findings = FindingSerializer(many=True)

    class Meta:
        model = Version
        fields = ["version", "findings"]


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    owner = serializers.CharField(source="owner.username")
    versions = VersionSerializer(many=True)

    class Meta:
        model = Dataset
        fields = ["name", "owner", "versions"]


class DatasetReportSerializer(DatasetSerializer):
    report = serializers.SerializerMethodField()

    class Meta(DatasetSerializer.Meta):
        fields = [*DatasetSerializer.Meta.fields, "report"]

    @extend_schema_field(ReportSerializer)
    def get_report(self, dataset: Dataset) -> dict[str, Any]:
        return dict(ReportSerializer(dataset.latest).data)
