"""The JSON of the training API, as OpenAPI describes it."""

from typing import Any

from rest_framework import serializers

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


class TaskSerializer(serializers.ModelSerializer):
    task_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    progress = ProgressSerializer(source="*")
    result = serializers.DictField(allow_null=True)
    error = TaskErrorSerializer(allow_null=True)
    experiment = serializers.CharField(source="experiment.name")
    note = serializers.SerializerMethodField(help_text="What a person should know about the state, as a sentence.")

    class Meta:
        model = Task
        fields = [
            "task_id", "status", "stage", "progress", "result", "error", "experiment", "attempt", "deaths", "note",
            "created_at", "started_at", "ended_at",
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
