"""The page that asks a model, or two side by side, about a text."""

import shlex
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render

from accounts.errors import LorasiteError
from accounts.models import User
from experiments.selectors import experiments_for
from training.copy_as import ways

from . import services


@login_required
def page(request: Any) -> HttpResponse:
    """Ask a finished experiment about one text, and another one beside it."""
    sent = request.POST or request.GET
    asked = {name: sent.get(name, "") for name in ("model", "second", "text")}
    models = experiments_for(request.user).filter(accuracy__isnull=False).order_by("-accuracy")
    context: dict[str, Any] = {"models": models.values_list("name", "accuracy"), "asked": asked}
    if request.method == "POST":
        context |= _answered(request, asked)
    return render(request, "inference/predict.html", context)


def _answered(request: Any, asked: dict[str, str]) -> dict[str, Any]:
    names = [asked["model"], asked["second"]] if asked["second"] else [asked["model"]]
    try:
        shown = [_shown(request.user, name, asked["text"]) for name in names]
    except LorasiteError as error:
        return {"error": error.message}
    return {"answers": shown, "copies": copies(request, shown[0]["model"], asked["text"])}


def _shown(user: User, name: str, text: str) -> dict[str, Any]:
    experiment = services.choose(user, name)
    (answer,) = services.predict(user=user, texts=[text], model=experiment.name)
    words = services.explain(experiment, text, answer["label"])
    return answer | {"sure": services.is_sure(answer["probabilities"]), "words": words}


def copies(request: Any, model: str, text: str) -> list[dict[str, str]]:
    command = f"python manage.py predict --model {shlex.quote(model)} --text {shlex.quote(text)}"
    return ways(request.build_absolute_uri("/api/predict"), {"text": text, "model": model}, command)
