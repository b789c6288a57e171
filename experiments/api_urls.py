from django.urls import path

from . import api

urlpatterns = [
    path("experiments", api.AllExperiments.as_view(), name="api-experiments"),
    path("experiments/mine", api.MyExperiments.as_view(), name="api-my-experiments"),
    path("experiments/delete", api.DeleteExperiments.as_view(), name="api-experiments-delete"),
    path("experiments/<str:name>", api.OneExperiment.as_view(), name="api-experiment"),
    path("experiments/<str:name>/files/<path:path>", api.ExperimentFile.as_view(), name="api-experiment-file"),
]
