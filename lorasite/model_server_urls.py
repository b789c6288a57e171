"""The addresses of `make serve`."""

from django.urls import re_path

from inference import model_server
from monitoring import views

handler404, handler500 = "web.error_responses.not_found", "web.error_responses.server_error"

# A slash at the end is optional, because no middleware redirects to the address that has one.
urlpatterns = [
    re_path(r"^predict/?$", model_server.Predict.as_view()),
    re_path(r"^v1/chat/completions/?$", model_server.ChatCompletions.as_view()),
    re_path(r"^v1/completions/?$", model_server.Completions.as_view()),
    re_path(r"^v1/models/?$", model_server.LanguageModels.as_view()),
    re_path(r"^v1/models/(?P<name>.+)$", model_server.LanguageModelDetail.as_view()),
    re_path(r"^health/?$", model_server.Health.as_view()),
    re_path(r"^healthz/?$", views.healthz),
    re_path(r"^readyz/?$", views.readyz),
    re_path(r"^metrics/?$", views.metrics),
]
