"""The page that asks a model, or two side by side, about a text."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from web.errors import LorasiteError
from web.throttles import limited

from . import recommendation, services
from .copy_as import copies
from .selectors import models_for


@login_required
@limited("predict")
def page(request: Any) -> HttpResponse:
    """Ask a model about one text, and another one beside it."""
    sent = request.POST or request.GET
    asked = {name: sent.get(name, "") for name in ("model", "second", "text")}
    registered, experiments = models_for(request.user).offered()
    own = {name for name, _accuracy in registered}
    context: dict[str, Any] = {"registered": registered, "registered_names": own, "asked": asked}
    context |= {"experiments": experiments, "names": own | {name for name, _accuracy in experiments}}
    if request.method == "POST":
        context |= _answered(request, asked)
    return render(request, "inference/predict.html", context)


@login_required
@require_GET
@vary_on_headers("HX-Request")
def recommend(request: Any) -> HttpResponse:
    """The models that fit a dataset, measured on its rows; a page, or the part that the page of models loads by itself."""
    data = recommendation.data_for(request.user, request.GET.get("dataset", ""))
    context = {"data": data, "found": recommendation.recommend(user=request.user, data=data)}
    return render(request, "inference/recommend.html" + ("#measured" if request.htmx else ""), context)


def _answered(request: Any, asked: dict[str, str]) -> dict[str, Any]:
    names = [asked["model"], asked["second"]] if asked["second"] else [asked["model"]]
    try:
        answers = [services.explained(user=request.user, text=asked["text"], model=name) for name in names]
    except LorasiteError as error:
        return {"error": error.message}
    return {"answers": answers, "copies": copies(request, answers[0]["model"], asked["text"])}
