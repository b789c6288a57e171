from django.urls import path

from . import api

urlpatterns = [
    path("datasets", api.Datasets.as_view(), name="api-datasets"),
    path("datasets/tasks/<uuid:task_id>", api.Task.as_view(), name="api-data-task"),
    path("datasets/tasks/<uuid:task_id>/cancel", api.CancelTask.as_view(), name="api-data-task-cancel"),
    path("datasets/<str:name>/changes", api.Changes.as_view(), name="api-dataset-changes"),
    path("datasets/<str:name>/rows", api.Rows.as_view(), name="api-dataset-rows"),
    path("datasets/<str:name>/download", api.Download.as_view(), name="api-dataset-download"),
    path("datasets/<str:name>/diff", api.Diff.as_view(), name="api-dataset-diff"),
    path("datasets/<str:name>/noise", api.Noise.as_view(), name="api-dataset-noise"),
    path("datasets/<str:name>/noise/<int:rank>", api.Decision.as_view(), name="api-dataset-decision"),
    path("datasets/<str:name>", api.DatasetDetail.as_view(), name="api-dataset"),
]
