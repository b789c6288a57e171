"""Pages: find an experiment, compare some, and see whether to trust one."""

from typing import Any

import yaml
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from accounts.permissions import visible
from web.errors import NotFound

from . import columns, compare, curves, results, selectors, services
from .models import Experiment
from .registry.card import metrics_at
from .registry.files import checkpoints
from .registry.selectors import models_for
from .selectors import experiment_for, experiments_named, files, managed_experiment

PER_PAGE = 50


@login_required
@require_GET
def index(request: Any) -> HttpResponse:
    query = {name: request.GET.get(name, "") for name in selectors.FILTERS}
    asked = request.GET.getlist("columns")
    selectors.check_columns(asked)
    shown = columns.chosen(asked)
    page = Paginator(selectors.search(request.user, **query), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "query": query,
        "filtered": any(value for name, value in query.items() if name != "sort"),
        "statuses": selectors.statuses(),
        "columns": columns.COLUMNS,
        "shown": shown,
        "heads": columns.heads(shown, query["sort"]),
        "lines": columns.lines(page, shown),
    }
    return render(request, "experiments/list.html", context | selectors.choices(request.user))


@login_required
@require_GET
def comparison(request: Any) -> HttpResponse:
    names = list(dict.fromkeys(request.GET.getlist("name")))
    if not compare.FEWEST <= len(names) <= compare.MOST:
        return render(request, "experiments/compare.html", {"names": names}, status=400)
    chosen, everything = experiments_named(request.user, names), bool(request.GET.get("all"))
    context = {
        "experiments": chosen,
        "measures": compare.measures(chosen),
        "labels": compare.labels(chosen),
        "settings": compare.settings(chosen, everything=everything),
        "everything": everything,
        "chart": curves.compared(chosen),
    }
    return render(request, "experiments/compare.html", context)


@login_required
@require_GET
def detail(request: Any, name: str) -> HttpResponse:
    experiment = experiment_for(request.user, name)
    metrics, kept = experiment.metrics, checkpoints(experiment)
    chosen = request.GET.get("checkpoint", "best")
    if chosen not in ("best", *kept):
        raise NotFound(_("This experiment has kept no such checkpoint."))
    context = {
        "experiment": experiment,
        "checkpoints": kept,
        "chosen": chosen,
        "at": metrics_at(experiment, chosen)["eval"] if chosen != "best" else None,
        "models": models_for(request.user).filter(versions__experiment=experiment).distinct(),
        "eval": metrics.get("eval", {}),
        "test": metrics.get("test"),
        "baseline": metrics.get("baseline", {}),
        "verdict": results.verdict(metrics),
        "skipped": results.skipped_sentences(metrics.get("data", {})),
        "charts": curves.of(experiment),
        "matrix": results.matrix(experiment.labels, metrics.get("eval", {}).get("confusion_matrix", [])),
        "worst": metrics.get("worst", [])[:10],
        "code": results.plain_peft(experiment, kept[chosen]["path"] if chosen != "best" else "artifacts/final_model"),
        "files": files(experiment),
        "config": yaml.safe_dump(experiment.config, sort_keys=False, allow_unicode=True),
        "manages": visible(request.user, Experiment.objects.filter(pk=experiment.pk), manage=True).exists(),
    }
    return render(request, "experiments/detail.html", context)


@login_required
@require_GET
def file(request: Any, name: str, path: str) -> FileResponse:
    """One file of the results; only what the list of files names can be had."""
    return FileResponse(services.opened(experiment_for(request.user, name), path), as_attachment=True)


@login_required
@require_GET
def everything(request: Any, name: str) -> FileResponse:
    """All files of the results as one .zip."""
    experiment = experiment_for(request.user, name)
    return FileResponse(services.archive(experiment), as_attachment=True, filename=f"{experiment.name}.zip")


@login_required
@require_POST
def delete(request: Any, name: str) -> HttpResponse:
    left = services.delete(user=request.user, experiment=managed_experiment(request.user, name))
    messages.success(request, _("%(name)s and its files are deleted.") % {"name": name})
    if left:
        messages.warning(request, _("The system kept some of its files; the server's log names them."))
    return redirect("experiments:list")
