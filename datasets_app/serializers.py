"""Serializers of the datasets API."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from datasets_app.reading.options import LONGEST_DELIMITER
from datasets_app.versions.reading_report import reading_report
from lists.serializers import TagsField
from web.name_fields import NameSerializerField
from web.requests import parse_whole_number
from work.models import Status

from .models import Dataset, DataTask, Finding, Suspect, Version


class _Counts(serializers.DictField):
    """Rows by name of the label or split."""

    child = serializers.IntegerField()


class UploadSerializer(serializers.Serializer[Any]):
    name = NameSerializerField(help_text="Of a new dataset, or of one that you manage: its next version.")
    file = serializers.FileField(allow_empty_file=True, required=False)
    hub = serializers.CharField(
        required=False, max_length=150, help_text="Id of a data set of the hub, in place of a file."
    )
    config = serializers.CharField(required=False, max_length=100)
    revision = serializers.CharField(required=False, max_length=100, help_text="Left out: the newest, which is pinned.")
    text_column = serializers.CharField(required=False, allow_blank=True)
    text_columns = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="In place of text_column: joined in this order."
    )
    text_pair_column = serializers.CharField(required=False, allow_blank=True, help_text="A second text of each row.")
    label_column = serializers.CharField(required=False, allow_blank=True)
    label_columns = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="In place of label_column: a column of yes and no for each label.",
    )
    split_column = serializers.CharField(required=False, allow_blank=True)
    split_values = serializers.JSONField(
        required=False, help_text='What its values mean, such as {"fold 1": "eval"}: train, eval or test.'
    )
    kind = serializers.ChoiceField(required=False, choices=Version.Kind.choices, help_text="Left out: guessed.")
    column_roles = serializers.JSONField(
        required=False,
        help_text='What the columns of conversations hold, such as {"question": "prompt", "reply": "answer"}: messages, prompt, '
        "answer, system, chosen or rejected.",
    )
    merge_labels = serializers.BooleanField(required=False, help_text="Merge labels that look alike.")
    encoding = serializers.CharField(required=False, allow_blank=True)
    delimiter = serializers.CharField(
        required=False, allow_blank=True, max_length=LONGEST_DELIMITER, trim_whitespace=False
    )
    quote = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=1,
        trim_whitespace=False,
        help_text="The quotation mark; empty: marks are part of the texts.",
    )
    header = serializers.BooleanField(required=False, allow_null=True, default=None)
    skip_lines = serializers.IntegerField(required=False, min_value=0, max_value=10_000, help_text="Before the header.")
    sheet = serializers.CharField(required=False, allow_blank=True, help_text="Of a workbook; left out: the first.")
    note = serializers.CharField(required=False, allow_blank=True, max_length=300)

    def validate_split_values(self, value: Any) -> dict[str, str]:
        """Require an object of names of splits."""
        is_mapping = isinstance(value, dict) and all(isinstance(split, str) for split in value.values())
        if not is_mapping or not {*value.values()} <= {"train", "eval", "test", ""}:
            raise serializers.ValidationError(_("Send an object such as {“fold 1”: “eval”}, of train, eval and test."))
        return dict(value)

    def validate_column_roles(self, value: Any) -> dict[str, str]:
        """Require an object of roles."""
        if not isinstance(value, dict) or not all(isinstance(role, str) for role in value.values()):
            raise serializers.ValidationError(_("Send an object such as {“question”: “prompt”, “reply”: “answer”}."))
        return dict(value)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require a file or a data set of the hub; only the latter has a configuration and a revision."""
        if not attrs.get("hub") and "file" not in attrs:
            raise serializers.ValidationError({"file": _("Send a file, or name a data set of the hub.")})
        for name in ("config", "revision"):
            if name in attrs and not attrs.get("hub"):
                raise serializers.ValidationError({name: _("This belongs to a data set of the hub; a file has none.")})
        return attrs


class ReadingSerializer(serializers.Serializer[Any]):
    """How a file was read: whatever was lost or changed on the way is told here."""

    format = serializers.CharField()
    encoding = serializers.CharField()
    delimiter = serializers.CharField()
    quote = serializers.CharField()
    header = serializers.BooleanField()
    sheet = serializers.CharField()
    columns = serializers.DictField(
        help_text="text, text_pair, label, split; of conversations messages, prompt, answer, system, chosen, rejected, split: "
        "names, a list of several, or numbers from 1 without a header."
    )
    rows_read = serializers.IntegerField()
    rows_left_out = _Counts(help_text="By reason.")
    lines = _Counts(help_text="Of a delimited file: before_header, header, blank, broken, records.")
    broken_lines = serializers.IntegerField()
    notes = serializers.ListField(child=serializers.CharField())


class StoredSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    labels = _Counts()
    kind = serializers.ChoiceField(choices=Version.Kind.choices)
    read = ReadingSerializer()
    report_url = serializers.CharField()


class VersionSerializer(serializers.ModelSerializer[Version]):
    version = serializers.IntegerField(source="number")
    labels = _Counts()
    splits = _Counts()
    parent = serializers.IntegerField(  # type: ignore[assignment]  # DRF has an attribute of that name
        source="parent.number",
        read_only=True,
        allow_null=True,
        help_text="Number of the version that this one follows.",
    )
    read = serializers.SerializerMethodField()

    class Meta:
        model = Version
        fields = ["version", "kind", "hash", "rows", "labels", "splits", "parent", "note", "read"]

    @extend_schema_field(ReadingSerializer)
    def get_read(self, version: Version) -> dict[str, Any]:
        return reading_report(version)


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
    tags = TagsField()
    versions = VersionSerializer(many=True)

    class Meta:
        model = Dataset
        fields = ["name", "owner", "tags", "note", "versions"]


class DatasetReportSerializer(DatasetSerializer):
    report = ReportSerializer(source="latest", read_only=True)

    class Meta(DatasetSerializer.Meta):
        fields = [*DatasetSerializer.Meta.fields, "report"]


class DataTaskSerializer(serializers.ModelSerializer[DataTask]):
    task_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    result = serializers.DictField(allow_null=True)
    error = serializers.DictField(source="explained_error", allow_null=True)
    url = serializers.SerializerMethodField()

    class Meta:
        model = DataTask
        fields = ["task_id", "status", "url", "kind", "name", "stage", "step", "total_steps", "result", "error"]

    def get_url(self, task: DataTask) -> str:
        return f"/api/datasets/tasks/{task.pk}"


class ChangeSerializer(serializers.Serializer[Any]):
    """What is done, and with what.

    `did`: fix (code, or codes for several in one version), edit (rows: {row: {text, label} or null}), rename (label or
    labels, to), merge (other), relabel.
    """

    did = serializers.ChoiceField(choices=["fix", "edit", "rename", "merge", "relabel"])
    version = serializers.IntegerField(required=False)
    code = serializers.CharField(required=False, max_length=30)
    codes = serializers.ListField(
        child=serializers.CharField(max_length=30), required=False, allow_empty=False, max_length=100
    )
    rows = serializers.DictField(child=serializers.DictField(allow_null=True), required=False)
    label = serializers.CharField(required=False, max_length=300)  # type: ignore[assignment]  # DRF has one of that name
    labels = serializers.ListField(
        child=serializers.CharField(max_length=300), required=False, allow_empty=False, max_length=1000
    )
    to = serializers.CharField(required=False, max_length=300)
    other = serializers.CharField(required=False, max_length=120)
    note = serializers.CharField(required=False, max_length=300, allow_blank=True)

    NEEDED = {"fix": [], "edit": ["rows"], "rename": ["to"], "merge": ["other"], "relabel": []}
    ONE_OR_MANY = {"fix": ("code", "codes"), "rename": ("label", "labels")}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require the fields that the kind of change needs (see NEEDED and ONE_OR_MANY), and numbers as keys of `rows`."""
        missing = [name for name in self.NEEDED[attrs["did"]] if name not in attrs]
        either = self.ONE_OR_MANY.get(attrs["did"], ())
        if either and attrs.keys().isdisjoint(either):
            missing.append(either[0])
        if missing:
            raise serializers.ValidationError({name: _("This field is needed here.") for name in missing})
        if any(parse_whole_number(row) is None for row in attrs.get("rows", {})):
            raise serializers.ValidationError({"rows": _("The keys are numbers of rows.")})
        return attrs


class RowSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField()
    text = serializers.CharField(help_text="A conversation is a list of messages as JSON.")
    label = serializers.CharField(help_text="Empty for conversations.")  # type: ignore[assignment]  # DRF has one of that name
    split = serializers.CharField(required=False)
    text_pair = serializers.CharField(required=False)


class RowsSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    count = serializers.IntegerField()
    results = RowSerializer(many=True)


class DiffSerializer(serializers.Serializer[Any]):
    old = serializers.IntegerField()
    new = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    changes = serializers.ListField(child=serializers.DictField())
    moves = serializers.ListField(child=serializers.DictField())
    labels = serializers.ListField(child=serializers.DictField())


class SuspectSerializer(serializers.ModelSerializer[Suspect]):
    class Meta:
        model = Suspect
        fields = ["rank", "row", "text", "label", "predicted", "given_probability", "predicted_probability", "decision"]


class DecisionSerializer(serializers.Serializer[Any]):
    label = serializers.CharField(allow_null=True, allow_blank=True, max_length=300)  # type: ignore[assignment]  # as above
