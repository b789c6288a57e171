"""The page that asks a model, or two side by side, about a text."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render

from accounts.errors import LorasiteError
from accounts.throttles import limited
from experiments.selectors import experiments_for

from . import services
from .copy_as import copies
from .selectors import with_model


@login_required
@limited("predict")
def page(request: Any) -> HttpResponse:
    """Ask a finished experiment about one text, and another one beside it."""
    sent = request.POST or request.GET
    asked = {name: sent.get(name, "") for name in ("model", "second", "text")}
    models = with_model(experiments_for(request.user)).values_list("name", "accuracy")
    context: dict[str, Any] = {"models": models, "asked": asked}
    if request.method == "POST":
        context |= _answered(request, asked)
    return render(request, "inference/predict.html", context)


def _answered(request: Any, asked: dict[str, str]) -> dict[str, Any]:
    names = [asked["model"], asked["second"]] if asked["second"] else [asked["model"]]
    try:
        answers = [services.explained(user=request.user, text=asked["text"], model=name) for name in names]
    except LorasiteError as error:
        return {"error": error.message}
    return {"answers": answers, "copies": copies(request, answers[0]["model"], asked["text"])}
