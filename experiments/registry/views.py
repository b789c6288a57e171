"""Pages of registered models: find one, see its results and card, register and change one."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING

from accounts import removals
from accounts.http import SignedInRequest
from accounts.models import User
from accounts.permissions import can_manage
from datasets_app import descriptions
from datasets_app.selectors import version_for as data_version_for
from lists.columns import column_heads
from lists.queries import lean_address, page_of, read_filters, render_list
from web.errors import LorasiteError
from web.undo import offer_undo, undoes

from ..models import Alias, Experiment, ModelExport, ModelVersion
from ..results import label_rows, plain_peft_code, read_facts
from ..selectors import free_name, get_experiment
from ..task_types import METRIC_TITLES, TASK_TYPES, key_figures
from ..verdicts import verdict
from . import card, exports, files, rivals, selectors, services
from .columns import COLUMNS, NEWEST_FIRST
from .labels import label_set

PER_PAGE = 50


@login_required
@require_GET
@vary_on_headers("HX-Request")
@lean_address(sort=[NEWEST_FIRST])
def index(request: SignedInRequest) -> HttpResponse:
    """All models that the person may see, or with `dataset` those that have exactly its labels."""
    query = read_filters(request.GET, selectors.FILTERS)
    models = selectors.search(request.user, **query)
    data = None
    if dataset := request.GET.get("dataset", ""):
        data = data_version_for(request.user, dataset)
        models = models.filter(pk__in=selectors.fitting(request.user, list(data.labels), data.task_type).values("pk"))
    context = {
        "page": page_of(request, models, PER_PAGE),
        "query": query,
        "data": data,
        "heads": column_heads(COLUMNS, query["sort"] or NEWEST_FIRST),
    }
    return render_list(request, "experiments/models.html", context | selectors.choices(request.user), kind="model")


@login_required
@require_GET
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    model = selectors.model_for(request.user, name)
    version = selectors.version_of(model, request.GET.get("version", ""))
    # In the reader's language; a version of an earlier release may have findings of checks that are gone.
    limits = [
        limit | {"sentence": descriptions.describe_finding(limit["code"], limit["count"])}
        for limit in version.limits
        if limit["code"] in descriptions.FINDING_TITLES
    ]
    facts = read_facts(version.folder)
    context = {
        "model": model,
        "version": version,
        "newest": model.latest_id == version.pk,
        "verdict": verdict(version.metrics),
        "calibration": card.calibration_sentences(version),
        "task_title": TASK_TYPES[version.task_type].title,
        "figures": key_figures(version.metrics),
        "score_title": METRIC_TITLES[version.score_name],
        "per_label": label_rows(version.metrics),
        "thresholds": version.metrics.get("thresholds", {}),
        "limits": limits,
        "card": card.render_card(version.card),
        "chat_template": card.describe_chat_template(facts),
        "code": plain_peft_code(model.name, version.labels, version.config, facts),
        "versions": model.versions.select_related("author").prefetch_related("aliases"),
    }
    return render(request, "experiments/model.html", context | export_context(request.user, version))


@login_required
def register(request: SignedInRequest) -> HttpResponse:
    """The form that turns a finished experiment into the next version of a model."""
    data = request.POST or request.GET
    experiment = get_experiment(request.user, data.get("experiment", ""), manage=True)
    models = rivals.own_models(request.user, experiment)
    labels = label_set(experiment.labels)
    likely_target = next((model.name for model in models if model.label_set == labels), "")
    target = data.get("target", likely_target if request.method == "GET" else "")
    values = {
        "name": target or data.get("name", ""),
        "summary": data.get("summary", ""),
        "note": data.get("note", ""),
        "checkpoint": data.get("checkpoint") or "best",
    }
    chosen = next((model for model in models if model.name == target), None)
    context: dict[str, Any] = {
        "experiment": experiment,
        "checkpoints": files.checkpoints(experiment),
        "values": values,
        "models": models,
        "target": target,
        "rival": rivals.find_rival(chosen, experiment) if chosen else None,
    }
    if request.method == "POST":
        try:
            version = services.register(user=request.user, experiment=experiment, **values)
        except LorasiteError as error:
            return render(request, "experiments/register.html", context | {"error": error}, status=error.status)
        messages.success(request, _("%(version)s is registered.") % {"version": version})
        return redirect("experiments:model", version.model.name)
    values["name"] = data.get("name") or suggest_name(request.user, experiment)
    return render(request, "experiments/register.html", context)


def suggest_name(user: User, experiment: Experiment) -> str:
    """Return the name of a run if a model may have it, or else a free one that is like it."""
    try:
        is_taken = services.target_model(user, experiment.name) is not None
    except LorasiteError:  # taken by somebody else, or reserved
        is_taken = True
    return free_name(f"{experiment.name}-model") if is_taken else experiment.name


@login_required
@require_GET
def archive(request: SignedInRequest, name: str) -> FileResponse:
    version = selectors.version_for(request.user, name)
    packed = services.archive(user=request.user, version=version)
    return FileResponse(packed, as_attachment=True, filename=f"{version.model.name}-{version.number}.zip")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def exported(request: SignedInRequest, name: str) -> HttpResponse:
    """Ask for an export (POST), or show how far the exports of a version are, while one is on its way."""
    version = selectors.version_for(request.user, name)
    if request.method == "POST":
        exports.request_export(user=request.user, version=version, format=request.POST.get("format", ""))
        return redirect_to_exports(version)
    if not request.htmx:
        return redirect_to_exports(version)
    context = export_context(request.user, version)
    status = 200 if context["exporting"] else HTMX_STOP_POLLING
    return render(request, "experiments/exports.html", context, status=status)


def export_context(user: User, version: ModelVersion) -> dict[str, Any]:
    """Return what the section on exports shows."""
    states = exports.list_formats(version)
    return {
        "version": version,
        "formats": states,
        "exporting": any(state.export and not state.export.finished for state in states),
        "can_export": user.can_create,
        "manages": can_manage(user, version),
    }


def redirect_to_exports(version: ModelVersion) -> HttpResponse:
    return redirect(f"{version.model.get_absolute_url()}?version={version.number}#exports")


@login_required
@require_GET
def export_archive(request: SignedInRequest, name: str, format: str) -> FileResponse:
    export = find_export(request, name, format)
    content = exports.open_export(user=request.user, export=export)
    return FileResponse(content, as_attachment=True, filename=exports.export_filename(export))


@login_required
@require_POST
def cancel_export(request: SignedInRequest, name: str, format: str) -> HttpResponse:
    export = find_export(request, name, format)
    exports.cancel_export(user=request.user, export=export)
    return redirect_to_exports(export.version)


@login_required
@require_POST
def delete_export(request: SignedInRequest, name: str, format: str) -> HttpResponse:
    export = find_export(request, name, format)
    exports.delete_export(user=request.user, export=export)
    messages.success(request, _("The export is deleted."))
    return redirect_to_exports(export.version)


def find_export(request: SignedInRequest, name: str, format: str) -> ModelExport:
    return exports.get_export(selectors.version_for(request.user, name), format)


@login_required
@require_POST
def describe(request: SignedInRequest, name: str) -> HttpResponse:
    """Store the summary, the card's text and the licences of a version."""
    version = selectors.version_for(request.user, name, manage=True)
    services.describe(
        user=request.user,
        version=version,
        summary=request.POST.get("summary", ""),
        text=request.POST.get("card", ""),
        licence={kind: request.POST.get(f"licence_{kind}", "") for kind in card.LICENCES},
    )
    messages.success(request, _("The card is saved."))
    return redirect(f"{version.model.get_absolute_url()}?version={version.number}")


@login_required
@require_POST
def alias(request: SignedInRequest, name: str) -> HttpResponse:
    """Point an alias at this version, or with `remove` remove it."""
    version = selectors.version_for(request.user, name, manage=True)
    model = version.model
    removed = request.POST.get("remove", "")
    alias_name = removed or request.POST.get("alias", "").strip()
    before = Alias.objects.filter(model=model, name=alias_name).values_list("version__number", flat=True).first()
    if removed:
        services.remove_alias(user=request.user, model=model, name=removed)
        message = _("The alias %(alias)s is removed. Predictions that use it will fail.") % {"alias": alias_name}
    else:
        services.set_alias(user=request.user, version=version, name=alias_name)
        message = _("@%(alias)s is version %(number)s now.") % {"alias": alias_name, "number": version.number}
    offer_undo(request, message, "alias", model=model.name, alias=alias_name, number=before)
    return redirect(f"{version.model.get_absolute_url()}?version={version.number}#versions-title")


@undoes("alias")
def restore_alias(user: User, model: str, alias: str, number: int | None) -> str:
    """Point an alias at the version that it pointed at before, or remove one that did not exist."""
    registered = selectors.model_for(user, model, manage=True)
    if number is None:
        services.remove_alias(user=user, model=registered, name=alias)
        return _("The alias %(alias)s is removed.") % {"alias": alias}
    version = selectors.version_for(user, f"{model}@{number}", manage=True)
    services.set_alias(user=user, version=version, name=alias)
    return _("@%(alias)s is version %(number)s now.") % {"alias": alias, "number": number}


@login_required
@require_POST
def delete(request: SignedInRequest, name: str) -> HttpResponse:
    """Delete one version if the name says which ("name@3"), else the whole model."""
    model = selectors.model_for(request.user, name.partition("@")[0], manage=True)
    if "@" in name:
        version = selectors.version_for(request.user, name)
        removal = services.remove_version(user=request.user, version=version)
        removals.show_removals(request, [removal], _("%(name)s is deleted.") % {"name": version})
        return redirect("experiments:model", model.name)
    removal = removals.remove(user=request.user, obj=model)
    removals.show_removals(request, [removal], _("%(name)s is deleted.") % {"name": name})
    return redirect("experiments:models")
