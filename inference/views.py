"""Pages: predict a text with one or two models, and find models for a dataset."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from web.errors import LorasiteError
from web.throttles import throttle_posts

from . import recommendation, services
from .copy_as import copies
from .selectors import models_for


@login_required
@throttle_posts("predict")
def page(request: SignedInRequest) -> HttpResponse:
    """Predict one text, and compare a second model's prediction."""
    data = request.POST or request.GET
    values = {name: data.get(name, "") for name in ("model", "second", "text")}
    registered, experiments = models_for(request.user).offered()
    registered_names = {name for name, _accuracy in registered}
    context: dict[str, Any] = {
        "registered": registered,
        "registered_names": registered_names,
        "experiments": experiments,
        "names": registered_names | {name for name, _accuracy in experiments},
        "values": values,
    }
    if request.method == "POST":
        names = [values["model"]]
        if values["second"]:
            names.append(values["second"])
        try:
            answers = [services.explain(user=request.user, text=values["text"], model=name) for name in names]
        except LorasiteError as error:
            context["error"] = error.message
        else:
            context["answers"] = answers
            context["copies"] = copies(request, answers[0]["model"], values["text"])
    return render(request, "inference/predict.html", context)


@login_required
@require_GET
@vary_on_headers("HX-Request")
def recommend(request: SignedInRequest) -> HttpResponse:
    """The models that match a dataset, measured on its rows: a page, or only the part that the models page loads."""
    data = recommendation.data_for(request.user, request.GET.get("dataset", ""))
    context = {"data": data, "recommendation": recommendation.recommend(user=request.user, data=data)}
    template = "inference/recommend.html#measured" if request.htmx else "inference/recommend.html"
    return render(request, template, context)
