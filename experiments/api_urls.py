from django.urls import path

from . import api
from .registry import api as registry

urlpatterns = [
    path("experiments", api.AllExperiments.as_view(), name="api-experiments"),
    path("experiments/mine", api.MyExperiments.as_view(), name="api-my-experiments"),
    path("experiments/delete", api.DeleteExperiments.as_view(), name="api-experiments-delete"),
    path("experiments/<str:name>", api.OneExperiment.as_view(), name="api-experiment"),
    path("experiments/<str:name>/files/<path:path>", api.ExperimentFile.as_view(), name="api-experiment-file"),
    path("models", registry.Models.as_view(), name="api-models"),
    path("models/<str:name>", registry.OneModel.as_view(), name="api-model"),
    path("models/<str:name>/archive", registry.ModelArchive.as_view(), name="api-model-archive"),
    path("models/<str:name>/exports", registry.ModelExports.as_view(), name="api-model-exports"),
    path("models/<str:name>/exports/<str:export_format>", registry.ModelExport.as_view(), name="api-model-export"),
    path(
        "models/<str:name>/exports/<str:export_format>/cancel",
        registry.CancelModelExport.as_view(),
        name="api-model-export-cancel",
    ),
    path(
        "models/<str:name>/exports/<str:export_format>/archive",
        registry.ModelExportArchive.as_view(),
        name="api-model-export-archive",
    ),
    path("models/<str:name>/aliases/<str:alias>", registry.ModelAlias.as_view(), name="api-model-alias"),
]
