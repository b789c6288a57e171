"""Pages: find a model, see what it is good for, register one."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from datasets_app.selectors import version_for as data_version_for
from web.errors import LorasiteError

from ..results import plain_peft_code, verdict
from ..selectors import free_name, managed_experiment
from . import card, files, selectors, services
from .services import manages

PER_PAGE = 50
SORTS = {
    "-updated": gettext_lazy("newest first"),
    "-accuracy": gettext_lazy("most accurate first"),
    "-macro_f1": gettext_lazy("best macro F1 first"),
    "name": gettext_lazy("by name"),
    "language": gettext_lazy("by language"),
    "base_model": gettext_lazy("by base model"),
}


@login_required
@require_GET
def index(request: Any) -> HttpResponse:
    """All models that the person may see, or for `dataset` those whose labels fit it."""
    query = {name: request.GET.get(name, "") for name in selectors.FILTERS}
    data = data_version_for(request.user, wanted) if (wanted := request.GET.get("dataset", "")) else None
    found = selectors.search(request.user, **query)
    if data:
        found = found.filter(pk__in=selectors.fitting(request.user, list(data.labels)).values("pk"))
    context = {
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "query": query,
        "filtered": any(value for name, value in query.items() if name != "sort"),
        "data": data,
        "sorts": SORTS,
    }
    return render(request, "experiments/models.html", context | selectors.choices(request.user))


@login_required
@require_GET
def detail(request: Any, name: str) -> HttpResponse:
    model = selectors.model_for(request.user, name)
    version = selectors.version_of(model, request.GET.get("version", ""))
    context = {
        "model": model,
        "version": version,
        "newest": model.latest_id == version.pk,
        "verdict": verdict(version.metrics),
        "per_label": version.metrics.get("eval", {}).get("per_label", {}),
        "limits": selectors.shown_limits(version),
        "card": card.rendered(version.card),
        "code": plain_peft_code(model.name, version.labels, version.config),
        "versions": model.versions.select_related("author").prefetch_related("aliases"),
        "manages": manages(request.user, model),
    }
    return render(request, "experiments/model.html", context)


@login_required
def register(request: Any) -> HttpResponse:
    """From a finished experiment to the next version of a model."""
    sent = request.POST or request.GET
    experiment = managed_experiment(request.user, sent.get("experiment", ""))
    asked = {name: sent.get(name, "") for name in ("name", "summary", "note")} | {
        "checkpoint": sent.get("checkpoint") or "best"
    }
    context: dict[str, Any] = {"experiment": experiment, "checkpoints": files.checkpoints(experiment), "asked": asked}
    if request.method == "POST":
        try:
            version = services.register(user=request.user, experiment=experiment, **asked)
        except LorasiteError as error:
            return render(request, "experiments/register.html", context | {"error": error}, status=error.status)
        messages.success(request, _("%(version)s is registered.") % {"version": version})
        return redirect("experiments:model", version.model.name)
    asked["name"] = asked["name"] or suggested(request.user, experiment.name)
    return render(request, "experiments/register.html", context)


def suggested(user: Any, name: str) -> str:
    """The run's own name, if the model of that name is none or one that the person manages."""
    try:
        services.check_name(user, name)
    except LorasiteError:
        return free_name(f"{name}-model")
    return name


@login_required
@require_GET
def archive(request: Any, name: str) -> FileResponse:
    version = selectors.version_for(request.user, name)
    packed = services.archive(user=request.user, version=version)
    return FileResponse(packed, as_attachment=True, filename=f"{version.model.name}-{version.number}.zip")


@login_required
@require_POST
def describe(request: Any, name: str) -> HttpResponse:
    version = _managed_version(request, name)
    licence = {kind: request.POST.get(f"licence_{kind}", "") for kind in card.LICENCES}
    services.describe(
        user=request.user, version=version, summary=request.POST.get("summary", ""), text=request.POST.get("card", ""),
        licence=licence,
    )  # fmt: skip
    messages.success(request, _("The card is stored."))
    return _back(version)


@login_required
@require_POST
def alias(request: Any, name: str) -> HttpResponse:
    """Let an alias mean this version, or with `remove` nothing any more."""
    version = _managed_version(request, name)
    if removed := request.POST.get("remove"):
        services.remove_alias(user=request.user, model=version.model, name=removed)
    else:
        services.set_alias(user=request.user, version=version, name=request.POST.get("alias", "").strip())
    return _back(version)


@login_required
@require_POST
def delete(request: Any, name: str) -> HttpResponse:
    """One version where the name says which, else the whole model."""
    model = selectors.managed_model(request.user, name.partition("@")[0])
    if "@" in name:
        services.delete_version(user=request.user, version=selectors.version_for(request.user, name))
        messages.success(request, _("%(name)s is deleted.") % {"name": name})
        return redirect("experiments:model", model.name)
    services.delete(user=request.user, model=model)
    messages.success(request, _("%(name)s and its files are deleted.") % {"name": name})
    return redirect("experiments:models")


def _managed_version(request: Any, name: str) -> Any:
    selectors.managed_model(request.user, name.partition("@")[0])
    return selectors.version_for(request.user, name)


def _back(version: Any) -> HttpResponse:
    found = redirect("experiments:model", version.model.name)
    found["Location"] += f"?version={version.number}"
    return found
