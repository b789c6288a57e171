from django.urls import path

from . import api

urlpatterns = [
    path("train", api.train, name="api-train"),
    path("train/validate", api.validate, name="api-train-validate"),
    path("base-models", api.base_models, name="api-base-models"),
    path("tasks", api.Tasks.as_view(), name="api-tasks"),
    path("tasks/cancel", api.cancel_many, name="api-tasks-cancel"),
    path("task/<uuid:task_id>", api.task, name="api-task"),
    path("task/<uuid:task_id>/cancel", api.cancel, name="api-task-cancel"),
    path("task/<uuid:task_id>/resume", api.resume, name="api-task-resume"),
    path("task/<uuid:task_id>/logs", api.logs, name="api-task-logs"),
]
