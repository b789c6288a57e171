from django.urls import path

from . import api

urlpatterns = [
    path("predict", api.Predict.as_view(), name="api-predict"),
    path("models/recommend", api.Recommend.as_view(), name="api-models-recommend"),
]
