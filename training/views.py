"""Pages: start a run, watch it, cancel and resume it."""

from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING

from accounts.errors import LorasiteError
from datasets_app.selectors import datasets_for
from experiments.selectors import free_name

from . import curves, selectors, services
from .copy_as import copies
from .forms import RunForm


@login_required
@vary_on_headers("HX-Request")
def run(request: Any, task_id: UUID) -> HttpResponse:
    task = selectors.task_for(request.user, task_id)
    context = {
        "task": task,
        "experiment": task.experiment,
        "steps": curves.stepper(task),
        "charts": curves.charts(task),
        "latest": task.points.filter(cpu_percent__isnull=False).last(),
        "log": reversed(task.log.order_by("-pk")[:12]),
        "note": selectors.note_for(task),
        "said": curves.said(task),
        "copies": copies(request, task.experiment.config),
    }
    ended = request.htmx and task.finished
    name = "training/run.html" + ("#progress" if request.htmx else "")
    return render(request, name, {**context, "polled": bool(request.htmx)}, status=HTMX_STOP_POLLING if ended else 200)


@login_required
def new(request: Any) -> HttpResponse:
    names = [f"{d.name}@{d.latest.number}" for d in datasets_for(request.user).prefetch_related("versions")]
    first = {"dataset_name": request.GET.get("dataset", ""), "experiment_name": free_name("run-1")}
    form = RunForm(request.POST or None, datasets=names, initial=first)
    if request.method == "POST" and form.is_valid():
        try:
            config = services.parse_config(form.configuration())
            task = services.submit(user=request.user, config=config, idempotency_key=form.cleaned_data["token"])
            return redirect("training:run", task.pk)
        except LorasiteError as error:
            form.take(error)
    return render(request, "training/new.html", {"form": form})


@login_required
@require_POST
def cancel(request: Any, task_id: UUID) -> HttpResponse:
    services.cancel(user=request.user, task=selectors.managed_task(request.user, task_id))
    return redirect("training:run", task_id)


@login_required
@require_POST
def resume(request: Any, task_id: UUID) -> HttpResponse:
    services.resume(user=request.user, task=selectors.managed_task(request.user, task_id))
    return redirect("training:run", task_id)
