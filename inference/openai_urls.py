"""The addresses that OpenAI's clients call, below /v1/."""

from django.urls import path

from . import openai_api

urlpatterns = [
    path("chat/completions", openai_api.ChatCompletions.as_view(), name="openai-chat"),
    path("completions", openai_api.Completions.as_view(), name="openai-completions"),
    path("models", openai_api.LanguageModels.as_view(), name="openai-models"),
    path("models/<path:name>", openai_api.LanguageModelDetail.as_view(), name="openai-model"),
]
