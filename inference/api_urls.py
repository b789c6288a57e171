from django.urls import path

from . import api

urlpatterns = [path("predict", api.Predict.as_view(), name="api-predict")]
