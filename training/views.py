"""Pages: start a run, watch it, cancel and resume it."""

from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING

from accounts.idempotency import KeyUsed, checked_key
from accounts.permissions import require_creator
from datasets_app.selectors import datasets_for
from engine.config import RunConfig
from experiments.selectors import experiment_for, free_name
from web.errors import LorasiteError
from web.throttles import count

from . import curves, estimates, presets, selectors, services
from .copy_as import copies
from .forms import RunForm
from .models import Task

LOG_TAIL = 12


@login_required
@vary_on_headers("HX-Request")
def run(request: Any, task_id: UUID) -> HttpResponse:
    """One run, live: the whole page, or for a poll the part that changes; 286 ends the polling."""
    task = selectors.task_for(request.user, task_id)
    points, heard = list(task.points.all()), request.GET.get("heard", "")
    context = {
        "task": task,
        "experiment": task.experiment,
        "steps": curves.stepper(task),
        "charts": curves.charts(points),
        "latest": next((p for p in reversed(points) if p.cpu_percent is not None), None),
        "verdict": curves.verdict(task, points),
        "log": task.log.order_by("-pk")[:LOG_TAIL],
        "note": selectors.note_for(task),
        "quarter": curves.quarter(task),
        "said": curves.said(task) if heard not in ("", str(curves.quarter(task))) else "",
        "manages": selectors.manages(request.user, task),
        "polled": bool(request.htmx),
    }
    if request.htmx:
        status = HTMX_STOP_POLLING if task.finished else 200
        return render(request, "training/run.html#progress", context, status=status)
    context["copies"] = copies(request, task.experiment.config)
    return render(request, "training/run.html", context)


@login_required
def new(request: Any) -> HttpResponse:
    """The form of a run. `do` says which button was pressed: start, estimate, show (as curl, …) or read (the YAML)."""
    require_creator(request.user)
    if request.method == "POST":
        count(request, "validate")  # each button reads the form's YAML values
    do, problem, estimate = request.POST.get("do", "start"), None, None
    form = _form(request, _asked(request), request.POST if request.method == "POST" and do != "read" else None)
    try:
        if request.method == "POST" and do == "start":
            return redirect("training:run", _start(request, form).pk)
        if request.method == "POST" and do == "estimate":
            estimate = _estimate(request, form)
        if request.method == "POST" and do == "read":
            form = _form(request, services.parse_config(request.POST.get("yaml", "")).model_dump(mode="json"))
    except LorasiteError as error:
        problem = error
        if do == "start":
            form.take(error)
    context = _panel(do, estimate, problem)
    if do == "estimate" and request.htmx:  # asked each second while a measurement goes on
        return render(request, "training/estimate.html", context)
    context |= {"form": form, "presets": presets.names(), "yaml": request.POST.get("yaml", "")}
    context["copies"] = copies(request, form.configuration())
    return render(request, "training/new.html", context, status=problem.status if problem else 200)


@login_required
@require_POST
def again(request: Any) -> HttpResponse:
    """The configuration of an experiment (`like`) once more, on another version of its data (`dataset`)."""
    found = experiment_for(request.user, request.POST.get("like", ""))
    config = found.config | {"experiment_name": free_name(found.name)}
    config["data"] = config["data"] | {"dataset_name": request.POST.get("dataset") or found.dataset_name}
    key = f"again-{found.pk}-{config['data']['dataset_name']}"  # pressed twice, it is one run
    try:
        task = _submit_again(request, config, key)
    except KeyUsed as error:  # that very run is there already, under the name that was free then
        made = selectors.tasks_for(request.user).filter(pk__in=[pk for pk in [error.facts.get("made")] if pk]).first()
        task = made or _submit_again(request, config, f"{key}-{config['experiment_name']}")  # it is gone or given away
    return redirect("training:run", task.pk)


def _submit_again(request: Any, config: dict[str, Any], key: str) -> Task:
    return services.submit(user=request.user, config=services.parse_config(config), idempotency_key=key)


def _start(request: Any, form: RunForm) -> Task:
    count(request, "train")
    config = services.parse_config(form.configuration())
    return services.submit(user=request.user, config=config, idempotency_key=checked_key(request.POST.get("token", "")))


def _panel(do: str, estimate: estimates.Estimate | None, problem: LorasiteError | None) -> dict[str, Any]:
    past_error = estimates.past_error() if estimate and estimate.forecast else None
    return {"do": do, "problem": problem, "estimate": estimate, "past_error": past_error}


def _estimate(request: Any, form: RunForm) -> estimates.Estimate:
    config = services.parse_config(form.configuration())
    return services.estimate(user=request.user, config=config, again="poll" not in request.POST)


def _form(request: Any, config: dict[str, Any], data: Any = None) -> RunForm:
    return RunForm(data, config=config, datasets=_newest(request), models=presets.base_models())


def _newest(request: Any) -> list[str]:
    """The newest version of every dataset, as name@version."""
    return [f"{d.name}@{d.latest.number}" for d in datasets_for(request.user)]


def _asked(request: Any) -> dict[str, Any]:
    """What the form starts from: an earlier experiment (`like`), a preset, a dataset."""
    if like := request.GET.get("like"):
        found = experiment_for(request.user, like)
        config = found.config | {"experiment_name": free_name(found.name)}
        if wanted := request.GET.get("dataset"):
            config["data"] = config["data"] | {"dataset_name": wanted}
        return config
    config = RunConfig.parse(presets.preset(request.GET.get("preset", ""))).model_dump(mode="json")
    wanted = request.GET.get("dataset") or config["data"]["dataset_name"]
    known = {name.partition("@")[0]: name for name in _newest(request)}
    config["data"]["dataset_name"] = known.get(wanted, wanted)
    return config | {"experiment_name": free_name("run-1")}


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
