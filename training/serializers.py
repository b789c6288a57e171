"""The JSON of the training API, as OpenAPI describes it."""

from typing import Any

from rest_framework import serializers

from experiments.remedies import outcome
from experiments.serializers import ResultSerializer
from experiments.task_types import USUAL
from web.requests import StrictUUIDField

from .models import LogLine, Status, Task
from .selectors import note_for


class AcceptedSerializer(serializers.ModelSerializer):
    task_id = serializers.UUIDField(source="pk")
    url = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = ["task_id", "status", "url"]

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


class NoticeSerializer(serializers.Serializer):
    level = serializers.ChoiceField(choices=["info", "warning"])
    code = serializers.CharField()
    message = serializers.CharField()


class TaskSerializer(serializers.ModelSerializer):
    task_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    progress = ProgressSerializer(source="*")
    result = TaskResultSerializer(source="*", allow_null=True)
    error = TaskErrorSerializer(allow_null=True)
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


class ManySerializer(serializers.Serializer):
    task_ids = serializers.ListField(child=StrictUUIDField(), min_length=1, max_length=100)


class DoneSerializer(serializers.Serializer):
    """The outcome for one of several tasks."""

    task_id = serializers.UUIDField()
    code = serializers.CharField(allow_blank=True, help_text="Empty if the task was cancelled, else the error code.")
    detail = serializers.CharField()
