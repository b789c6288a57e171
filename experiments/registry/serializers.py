"""Shapes of the models API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from lists.serializers import AnnotateSerializer, TagsField
from web.name_fields import NameSerializerField
from web.requests import StrictCharField
from work.models import Status

from ..models import ModelExport, ModelVersion, RegisteredModel
from .card import LICENCES
from .exports import FORMATS, FormatState, ready_exports


class ModelRow(serializers.ModelSerializer[RegisteredModel]):
    """A model in a list, with the labels and results of its newest version."""

    owner = serializers.CharField(source="owner.username", read_only=True)
    version = serializers.IntegerField(source="latest.number", read_only=True)
    labels = serializers.ListField(child=serializers.CharField(), source="latest.labels", read_only=True)
    dataset = serializers.CharField(source="latest.dataset_name", read_only=True)
    score_name = serializers.CharField(read_only=True, help_text="The metric of its task type that `score` is.")
    tags = TagsField()

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
            "tags",
            "note",
        ]


class ExportResultSerializer(serializers.Serializer[Any]):
    """How exported files answer beside the served model."""

    texts = serializers.IntegerField(help_text="That were compared.")
    equal_answers = serializers.FloatField(
        allow_null=True,
        help_text="Share of texts with the same label, labels, entities or greedy answer, 0 to 1; null for scores and plain texts.",
    )
    largest_change = serializers.FloatField(
        help_text="Of a probability, of a score in standard deviations of the training scores, or of the log-probability of "
        "an expected token."
    )
    mean_change = serializers.FloatField(
        default=None,
        allow_null=True,
        help_text="Of the log-probabilities of expected tokens; null for other than language models.",
    )
    prompts = serializers.DictField(
        child=serializers.IntegerField(),
        default=None,
        allow_null=True,
        help_text="Of language models, how many texts are of which kind: held_out, training, parts of both, or random.",
    )
    compared_on = serializers.CharField(
        allow_blank=True, help_text="The dataset whose rows were compared; empty: random texts."
    )


class ReadyExportSerializer(serializers.ModelSerializer[ModelExport]):
    """An export that can be downloaded."""

    format = serializers.ChoiceField(FORMATS)
    result = ExportResultSerializer(read_only=True)

    class Meta:
        model = ModelExport
        fields = ["format", "size", "created_at", "result"]


class ExportSerializer(serializers.Serializer[Any]):
    """One format of a model version, and what became of its export; task_id and status are null before the first one."""

    format = serializers.ChoiceField(FORMATS)
    missing_packages = serializers.ListField(
        child=serializers.CharField(), source="missing", help_text="Without them the server can't write this format."
    )
    install = serializers.CharField(allow_blank=True, help_text="The command that installs them.")
    task_id = serializers.UUIDField(source="export.pk", default=None, allow_null=True)
    status = serializers.ChoiceField(Status.choices, source="export.status", default=None, allow_null=True)
    stage = serializers.CharField(source="export.stage", default="", allow_blank=True)
    step = serializers.IntegerField(source="export.step", default=0)
    total_steps = serializers.IntegerField(source="export.total_steps", default=0)
    author = serializers.CharField(source="export.author.username", default="", allow_blank=True)
    size = serializers.IntegerField(source="export.size", default=0, help_text="Bytes of the .zip file.")
    result = ExportResultSerializer(source="export.result", default=None, allow_null=True)
    error = serializers.DictField(source="export.explained_error", default=None, allow_null=True)
    url = serializers.SerializerMethodField()

    def get_url(self, state: FormatState) -> str:
        return f"/api/models/{state.version}/exports/{state.format}"


class RequestExportSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    format = serializers.ChoiceField(FORMATS)


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    version = serializers.IntegerField(source="number", read_only=True)
    author = serializers.CharField(source="author.username", read_only=True)
    experiment = serializers.CharField(source="experiment_name", read_only=True)
    dataset = serializers.CharField(source="dataset_name", read_only=True)
    labels = serializers.ListField(child=serializers.CharField(), read_only=True)
    limits = serializers.ListField(child=serializers.DictField(), read_only=True)
    score_name = serializers.CharField(read_only=True, help_text="The metric of its task type that `score` is.")
    exports = serializers.SerializerMethodField()

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
            "exports",
        ]

    @extend_schema_field(ReadyExportSerializer(many=True))
    def get_exports(self, version: ModelVersion) -> Any:
        return ReadyExportSerializer(ready_exports(version), many=True).data


class ModelDetail(ModelRow):
    """A model with one full version (the newest, or the one that the address names) and the numbers of all versions."""

    aliases = serializers.SerializerMethodField()
    versions = serializers.SerializerMethodField()
    chosen = serializers.SerializerMethodField()

    class Meta(ModelRow.Meta):
        fields = [*ModelRow.Meta.fields, "aliases", "versions", "chosen"]

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_aliases(self, model: RegisteredModel) -> dict[str, int]:
        return dict(model.aliases.filter(version__in=model.versions.all()).values_list("name", "version__number"))

    @extend_schema_field(serializers.ListField(child=serializers.IntegerField()))
    def get_versions(self, model: RegisteredModel) -> list[int]:
        return list(model.versions.values_list("number", flat=True))

    @extend_schema_field(ModelVersionSerializer)
    def get_chosen(self, model: RegisteredModel) -> dict[str, Any]:
        return dict(ModelVersionSerializer(self.context["version"]).data)


class RegisterSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    experiment = NameSerializerField()
    name = NameSerializerField(help_text="Of a new model, or of one that you manage: its next version.")
    summary = StrictCharField(required=False, allow_blank=True, max_length=300, help_text="What it does, in one line.")
    note = StrictCharField(required=False, allow_blank=True, max_length=300, help_text="What is new in this version.")
    checkpoint = serializers.ChoiceField(["best", "last", "fastest"], required=False)


class LicenceSerializer(serializers.Serializer[Any]):
    base_model = StrictCharField(required=False, allow_blank=True, max_length=80)
    dataset = StrictCharField(required=False, allow_blank=True, max_length=80)


class DescribeSerializer(AnnotateSerializer):
    summary = StrictCharField(required=False, allow_blank=True, max_length=300)
    card = StrictCharField(required=False, allow_blank=True, help_text="Markdown.")
    licence = LicenceSerializer(required=False, help_text=f"Of {' and '.join(LICENCES)}.")


class AliasSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    version = serializers.IntegerField(min_value=1)
