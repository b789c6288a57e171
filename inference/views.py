from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render

from accounts.errors import LorasiteError
from experiments.selectors import experiments_for

from .services import predict


@login_required
def page(request: Any) -> HttpResponse:
    """Ask a finished experiment about one text."""
    asked = request.POST or request.GET
    models = experiments_for(request.user).filter(accuracy__isnull=False).values_list("name", "accuracy")
    context: dict[str, Any] = {"models": models, "model": asked.get("model", ""), "text": asked.get("text", "")}
    if request.method == "POST":
        try:
            (context["answer"],) = predict(user=request.user, texts=[context["text"]], model=context["model"] or None)
        except LorasiteError as error:
            context["error"] = error.message
    return render(request, "inference/predict.html", context)
