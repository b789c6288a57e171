from django.urls import path

from . import api

urlpatterns = [path("audit/logs", api.Logs.as_view(), name="api-audit-logs")]
