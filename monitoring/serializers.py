"""Serializers of selectors.System."""

from typing import Any

from rest_framework import serializers


class CheckSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    state = serializers.ChoiceField(["ok", "warning", "error"])
    reason = serializers.CharField()


class QueueSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    oldest_seconds = serializers.FloatField()
    tokens_per_second = serializers.FloatField()
    workers = serializers.IntegerField()


class WorkerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(source="row")
    kind = serializers.CharField(source="row.kind")
    device = serializers.CharField(source="row.device")
    version = serializers.CharField(source="row.version")
    started_at = serializers.DateTimeField(source="row.started_at")
    seen_at = serializers.DateTimeField(source="row.seen_at")
    alive = serializers.BooleanField(source="is_alive")
    task_id = serializers.UUIDField(source="task.pk", allow_null=True, default=None)
    figures = serializers.DictField(source="row.figures")


class DiskSerializer(serializers.Serializer[Any]):
    place = serializers.CharField()
    size_bytes = serializers.IntegerField(source="size")
    free_bytes = serializers.IntegerField(source="free")


class SystemSerializer(serializers.Serializer[Any]):
    ready = serializers.BooleanField(source="is_ready")
    checks = CheckSerializer(many=True)
    queues = QueueSerializer(many=True)
    workers = WorkerSerializer(many=True)
    disks = DiskSerializer(many=True)
    versions = serializers.DictField(child=serializers.CharField())
