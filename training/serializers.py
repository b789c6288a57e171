"""The JSON of the training API, as OpenAPI describes it."""

from typing import Any

from rest_framework import serializers

from experiments.remedies import outcome
from experiments.serializers import ResultSerializer
from experiments.task_types import USUAL
from web.requests import StrictUUIDField

from .models import LogLine, Status, Task
from .selectors import note_for


class NoticeSerializer(serializers.Serializer):
    level = serializers.ChoiceField(choices=["info", "warning"])
    code = serializers.CharField()
    message = serializers.CharField()


class AcceptedSerializer(serializers.ModelSerializer):
    task_id = serializers.UUIDField(source="pk")
    url = serializers.SerializerMethodField()
    notices = NoticeSerializer(
        many=True,
        help_text="What you should know before the run, such as a base model that does not read the language of the data.",
    )

    class Meta:
        model = Task
        fields = ["task_id", "status", "url", "notices"]

    def get_url(self, task: Task) -> str:
        return f"/api/task/{task.pk}"


class ProgressSerializer(serializers.ModelSerializer):
    class Meta:
        model = Task
        fields = ["step", "total_steps", "epoch", "loss", "tokens_per_second", "eta_seconds"]


class TaskErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    kept = serializers.CharField()
    next = serializers.CharField()


class TaskResultSerializer(ResultSerializer):
    """What a finished run has reached; null until it has finished."""

    accuracy = serializers.FloatField(allow_null=True)
    macro_f1 = serializers.FloatField(allow_null=True)
    loss = serializers.FloatField(allow_null=True)
    task_type = serializers.CharField(help_text="What the run learned: `task` of its configuration.")
    scores = serializers.DictField(
        child=serializers.FloatField(allow_null=True), help_text="The metrics of its task type on the held-out rows."
    )

    def to_representation(self, instance: Task) -> dict[str, Any] | None:  # type: ignore[override]
        if instance.result is None:
            return None
        older = {"task_type": USUAL, "scores": instance.result}  # of a release that knew no other task types
        return older | instance.result | outcome(instance.experiment.metrics, instance.experiment.config)


class TaskSerializer(serializers.ModelSerializer):
    task_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    progress = ProgressSerializer(source="*")
    result = TaskResultSerializer(source="*", allow_null=True)
    error = TaskErrorSerializer(source="explained_error", allow_null=True)
    experiment = serializers.CharField(source="experiment.name")
    notices = NoticeSerializer(many=True, help_text="What the engine noticed about data, base model and training.")
    note = serializers.SerializerMethodField(help_text="What a person should know about the state, as a sentence.")

    class Meta:
        model = Task
        fields = [
            "task_id", "status", "stage", "progress", "result", "error", "experiment", "attempt", "deaths", "note",
            "notices", "created_at", "started_at", "ended_at",
        ]  # fmt: skip

    def get_note(self, task: Task) -> str:
        return note_for(task)


class LogLineSerializer(serializers.ModelSerializer):
    class Meta:
        model = LogLine
        fields = ["id", "at", "level", "text"]


class LogSerializer(serializers.Serializer):
    lines = LogLineSerializer(many=True)
    next = serializers.IntegerField(help_text="Send it as ?after= to get the lines that follow.")


class ValidConfigSerializer(serializers.Serializer):
    config: Any = serializers.DictField(help_text="The configuration with every default filled in.")
    notices = NoticeSerializer(many=True, help_text="What you should know before the run; nothing of it is an error.")


class BaseModelSerializer(serializers.Serializer):
    """A base model. What is not known is null or empty."""

    name = serializers.CharField(help_text="`model.name` of a configuration.")
    place = serializers.ChoiceField(
        choices=["sample", "folder", "hub_cache", "hub"], help_text="Where it is; hub: it would be downloaded."
    )
    on_this_machine = serializers.BooleanField(source="is_here")
    recommended = serializers.BooleanField(help_text="Whether it is in the table of recommended base models.")
    parameters_m = serializers.FloatField(allow_null=True, help_text="In millions.")
    languages = serializers.ListField(
        child=serializers.CharField(),
        help_text="In English, as in the reports of datasets; empty if they are too many to name.",
    )
    language_count = serializers.IntegerField(allow_null=True, help_text="Null if its languages are not known.")
    licence = serializers.CharField(allow_blank=True, help_text="As its makers state it.")
    longest_text = serializers.IntegerField(allow_null=True, help_text="In tokens.")
    fused_kernels = serializers.BooleanField(allow_null=True, help_text="Whether it is trained with fused layers.")
    shared_serving = serializers.BooleanField(
        allow_null=True, help_text="Whether all its adapters are served by one copy of it."
    )
    safetensors = serializers.BooleanField(
        help_text="Whether the hub has weights that can be loaded without running code; others have to be converted."
    )
    revision = serializers.CharField(
        allow_blank=True, help_text="`model.revision` with such weights, where the main branch has others only."
    )
    purpose = serializers.CharField(allow_blank=True)
    task_types = serializers.ListField(
        child=serializers.CharField(), help_text="What it can learn, as `task` of a configuration; empty if not known."
    )


class BaseModelsSerializer(serializers.Serializer):
    results = BaseModelSerializer(many=True)
    hub = serializers.ChoiceField(
        choices=["not_asked", "searched", "away"], help_text="Whether `results` has what the model hub found."
    )


class ManySerializer(serializers.Serializer):
    task_ids = serializers.ListField(child=StrictUUIDField(), min_length=1, max_length=100)


class DoneSerializer(serializers.Serializer):
    """The outcome for one of several tasks."""

    task_id = serializers.UUIDField()
    code = serializers.CharField(allow_blank=True, help_text="Empty if the task was cancelled, else the error code.")
    detail = serializers.CharField()
