"""Shapes of the models API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from web.requests import StrictCharField

from ..models import ModelVersion, RegisteredModel
from .card import LICENCES


class ModelRow(serializers.ModelSerializer[RegisteredModel]):
    """A model in a list, with the labels and results of its newest version."""

    owner = serializers.CharField(source="owner.username", read_only=True)
    version = serializers.IntegerField(source="latest.number", read_only=True)
    labels = serializers.ListField(child=serializers.CharField(), source="latest.labels", read_only=True)
    dataset = serializers.CharField(source="latest.dataset_name", read_only=True)
    score_name = serializers.CharField(read_only=True, help_text="The metric of its task type that `score` is.")

    class Meta:
        model = RegisteredModel
        fields = [
            "name",
            "owner",
            "summary",
            "version",
            "language",
            "labels",
            "base_model",
            "dataset",
            "task_type",
            "score",
            "score_name",
            "accuracy",
            "macro_f1",
            "updated_at",
        ]


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    version = serializers.IntegerField(source="number", read_only=True)
    author = serializers.CharField(source="author.username", read_only=True)
    experiment = serializers.CharField(source="experiment_name", read_only=True)
    dataset = serializers.CharField(source="dataset_name", read_only=True)
    labels = serializers.ListField(child=serializers.CharField(), read_only=True)
    limits = serializers.ListField(child=serializers.DictField(), read_only=True)
    score_name = serializers.CharField(read_only=True, help_text="The metric of its task type that `score` is.")

    class Meta:
        model = ModelVersion
        fields = [
            "version",
            "author",
            "created_at",
            "note",
            "experiment",
            "checkpoint",
            "dataset",
            "dataset_hash",
            "base_model",
            "licence",
            "language",
            "labels",
            "task_type",
            "score",
            "score_name",
            "accuracy",
            "macro_f1",
            "metrics",
            "config",
            "limits",
            "machine",
            "trained_at",
            "size",
            "card",
        ]


class ModelDetail(ModelRow):
    """A model with one full version (the newest, or the one that the address names) and the numbers of all versions."""

    aliases = serializers.SerializerMethodField()
    versions = serializers.SerializerMethodField()
    chosen = serializers.SerializerMethodField()

    class Meta(ModelRow.Meta):
        fields = [*ModelRow.Meta.fields, "aliases", "versions", "chosen"]

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_aliases(self, model: RegisteredModel) -> dict[str, int]:
        return dict(model.aliases.values_list("name", "version__number"))

    @extend_schema_field(serializers.ListField(child=serializers.IntegerField()))
    def get_versions(self, model: RegisteredModel) -> list[int]:
        return list(model.versions.values_list("number", flat=True))

    @extend_schema_field(ModelVersionSerializer)
    def get_chosen(self, model: RegisteredModel) -> dict[str, Any]:
        return dict(ModelVersionSerializer(self.context["version"]).data)


class RegisterSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    experiment = StrictCharField(max_length=80)
    name = StrictCharField(max_length=80, help_text="Of a new model, or of one that you manage: its next version.")
    summary = StrictCharField(required=False, allow_blank=True, max_length=300, help_text="What it does, in one line.")
    note = StrictCharField(required=False, allow_blank=True, max_length=300, help_text="What is new in this version.")
    checkpoint = serializers.ChoiceField(["best", "last", "fastest"], required=False)


class LicenceSerializer(serializers.Serializer[Any]):
    base_model = StrictCharField(required=False, allow_blank=True, max_length=80)
    dataset = StrictCharField(required=False, allow_blank=True, max_length=80)


class DescribeSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    summary = StrictCharField(required=False, allow_blank=True, max_length=300)
    card = StrictCharField(required=False, allow_blank=True, help_text="Markdown.")
    licence = LicenceSerializer(required=False, help_text=f"Of {' and '.join(LICENCES)}.")


class AliasSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    version = serializers.IntegerField(min_value=1)
