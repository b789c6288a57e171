from django.urls import path

from . import api

urlpatterns = [path("system", api.System.as_view(), name="api-system")]
