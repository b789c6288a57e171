"""Shapes of the experiments API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from lists.serializers import TagsField

from .models import Experiment
from .remedies import outcome
from .selectors import files


class ExperimentRow(serializers.ModelSerializer[Experiment]):
    """An experiment in a list."""

    experiment = serializers.CharField(source="name", read_only=True)
    task_id = serializers.UUIDField(source="task.pk", read_only=True, default=None)
    status = serializers.CharField(source="task.status", read_only=True, default=None)
    owner = serializers.CharField(source="owner.username", read_only=True)
    dataset = serializers.CharField(source="dataset_name", read_only=True)
    score_name = serializers.CharField(read_only=True, help_text="The metric of its task type that `score` is.")
    tags = TagsField()

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
            "task_type",
            "score",
            "score_name",
            "accuracy",
            "macro_f1",
            "learned",
            "tags",
            "note",
            "created_at",
        ]


class ResultSerializer(serializers.Serializer[Any]):
    """Whether a finished run learned; null until it has finished."""

    learned = serializers.BooleanField(
        allow_null=True,
        help_text="False if the model is no better than the majority-class baseline. Null for runs of an older release.",
    )
    cause = serializers.CharField(
        allow_blank=True,
        help_text="Why it probably did not learn: learning_rate_too_high, learning_rate_too_low, unknown_tokens, "
        "precision, too_few_steps or data. Empty if it learned, or if the cause is not known.",
    )
    message = serializers.CharField(allow_blank=True, help_text="The cause and its evidence in words.")
    remedy = serializers.DictField(
        child=serializers.DictField(),
        help_text='Changes of the configuration that may help, such as {"training": {"learning_rate": 0.0005}}.',
    )

    def to_representation(self, instance: Experiment) -> dict[str, Any] | None:  # type: ignore[override]
        return outcome(instance.metrics, instance.config) if instance.is_ready else None


class FileSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="Below the results folder; what …/files/{path} takes.")
    size = serializers.IntegerField(help_text="In bytes.")


class ExperimentDetail(ExperimentRow):
    result = ResultSerializer(source="*", read_only=True, allow_null=True)
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
            "task_type",
            "score",
            "score_name",
            "config",
            "metrics",
            "result",
            "files",
            "tags",
            "note",
            "created_at",
        ]

    @extend_schema_field(FileSerializer(many=True))
    def get_files(self, experiment: Experiment) -> list[dict[str, Any]]:
        return files(experiment)
