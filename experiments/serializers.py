"""Shapes of the experiments API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from .models import Experiment
from .selectors import files


class ExperimentRow(serializers.ModelSerializer[Experiment]):
    """An experiment in a list."""

    experiment = serializers.CharField(source="name", read_only=True)
    task_id = serializers.UUIDField(source="task.pk", read_only=True, default=None)
    status = serializers.CharField(source="task.status", read_only=True, default=None)
    owner = serializers.CharField(source="owner.username", read_only=True)
    dataset = serializers.CharField(source="dataset_name", read_only=True)

    class Meta:
        model = Experiment
        fields = [
            "experiment",
            "task_id",
            "status",
            "owner",
            "dataset",
            "dataset_hash",
            "base_model",
            "accuracy",
            "macro_f1",
            "created_at",
        ]


class FileSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="Below the results folder; what …/files/{path} takes.")
    size = serializers.IntegerField(help_text="In bytes.")


class ExperimentDetail(ExperimentRow):
    files = serializers.SerializerMethodField()

    class Meta(ExperimentRow.Meta):
        fields = [
            "experiment",
            "task_id",
            "status",
            "owner",
            "dataset",
            "dataset_hash",
            "base_model",
            "config",
            "metrics",
            "files",
            "created_at",
        ]

    @extend_schema_field(FileSerializer(many=True))
    def get_files(self, experiment: Experiment) -> list[dict[str, Any]]:
        return files(experiment)
