"""The request of the predict page as curl, Python, a command and YAML."""

import shlex

from django.http import HttpRequest

from training.copy_as import request_snippets


def copies(request: HttpRequest, model: str, text: str) -> list[dict[str, str]]:
    command = f"python manage.py predict --model {shlex.quote(model)} --text {shlex.quote(text)}"
    return request_snippets(request.build_absolute_uri("/api/predict"), {"text": text, "model": model}, command)
