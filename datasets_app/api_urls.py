from django.urls import path

from . import api

urlpatterns = [
    path("datasets", api.Datasets.as_view(), name="api-datasets"),
    path("datasets/<str:name>", api.DatasetDetail.as_view(), name="api-dataset"),
]
