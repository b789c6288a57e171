"""API addresses and OpenAPI. Each app lists its own in <app>/api_urls.py."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

urlpatterns = [
    path("", include("accounts.api_urls")),
    path("", include("audit.api_urls")),
    path("", include("datasets_app.api_urls")),
    path("", include("inference.api_urls")),  # before experiments: models/recommend is no model
    path("", include("experiments.api_urls")),
    path("", include("training.api_urls")),
    path("", include("monitoring.api_urls")),
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
]
