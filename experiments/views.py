"""Pages: find an experiment, compare several, and judge the result of one."""

import yaml
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from accounts.http import SignedInRequest
from accounts.permissions import can_manage
from engine.task_types import LOWER_IS_BETTER
from web.errors import NotFoundError

from . import columns, compare, curves, remedies, results, selectors, services
from .evaluation_sets import share_evaluation_rows
from .registry.card import metrics_at
from .registry.files import checkpoints
from .registry.selectors import models_for
from .result_charts import describe_calibration, scores_chart
from .selectors import experiments_named, files, get_experiment
from .task_types import baseline_figures, key_figures, task_type_of
from .verdicts import describe_scores, verdict

PER_PAGE = 50


@login_required
@require_GET
def index(request: SignedInRequest) -> HttpResponse:
    query = {name: request.GET.get(name, "") for name in selectors.FILTERS}
    keys = request.GET.getlist("columns")
    shown = selectors.select_columns(keys)
    page = Paginator(selectors.search(request.user, **query), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "query": query,
        "filtered": any(value for name, value in query.items() if name != "sort"),
        "statuses": selectors.statuses(),
        "columns": columns.COLUMNS,
        "shown": shown,
        "heads": columns.column_heads(shown, query["sort"]),
        "lines": columns.table_lines(page, shown, query["sort"]),
    }
    return render(request, "experiments/list.html", context | selectors.choices(request.user))


@login_required
@require_GET
def comparison(request: SignedInRequest) -> HttpResponse:
    names = list(dict.fromkeys(request.GET.getlist("name")))  # each once, in this order
    if not compare.FEWEST <= len(names) <= compare.MOST:
        return render(request, "experiments/compare.html", {"names": names}, status=400)
    experiments = experiments_named(request.user, names)
    everything = bool(request.GET.get("all"))
    context = {
        "experiments": experiments,
        "measures": compare.measure_rows(experiments),
        "labels": compare.label_rows(experiments),
        "settings": compare.setting_rows(experiments, everything=everything),
        "everything": everything,
        "comparable": share_evaluation_rows(experiments),
        "charts": curves.comparison_charts(experiments),
    }
    return render(request, "experiments/compare.html", context)


@login_required
@require_GET
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    """The result of one experiment; with `checkpoint`, also the scores of another checkpoint than the best."""
    experiment = get_experiment(request.user, name)
    available = checkpoints(experiment)
    chosen = request.GET.get("checkpoint", "best")
    if chosen not in ("best", *available):
        raise NotFoundError(_("This experiment has not kept this checkpoint."))
    adapter = "artifacts/final_model"
    scores = ""
    if chosen != "best":
        adapter = available[chosen]["path"]
        scores = describe_scores(metrics_at(experiment, chosen))
    metrics = experiment.metrics
    evaluation = metrics.get("eval", {})
    context = {
        "experiment": experiment,
        "checkpoints": available,
        "chosen": chosen,
        "at": scores,
        "models": models_for(request.user).filter(versions__experiment=experiment).distinct(),
        "eval": evaluation,
        "figures": key_figures(metrics),
        "test_figures": key_figures({**metrics, "eval": metrics["test"]})[:1] if metrics.get("test") else [],
        "baselines": baseline_figures(metrics),
        "lower_is_better": experiment.config.get("training", {}).get("metric_for_best_model") in LOWER_IS_BETTER,
        "result_template": f"experiments/results/{task_type_of(metrics)}.html",
        "labels": results.label_rows(metrics),
        "scores_chart": scores_chart(metrics),
        "calibration": describe_calibration(metrics),
        "verdict": verdict(metrics),
        "diagnosis": remedies.diagnose(metrics, experiment.config),
        "notices": results.notices(metrics),
        "skipped": results.skipped_sentences(metrics.get("data", {})),
        "charts": curves.run_charts(experiment),
        "matrix": results.matrix_rows(experiment.labels, evaluation.get("confusion_matrix", [])),
        "confusions": results.top_confusions(experiment.labels, evaluation.get("confusion_matrix", [])),
        "worst": results.worst_rows(metrics),
        "code": results.plain_peft(experiment, adapter),
        "files": files(experiment),
        "config": yaml.safe_dump(experiment.config, sort_keys=False, allow_unicode=True),
        "manages": can_manage(request.user, experiment),
    }
    return render(request, "experiments/detail.html", context)


@login_required
@require_GET
def file(request: SignedInRequest, name: str, path: str) -> FileResponse:
    """One file of the results; only paths in the list of files are served."""
    return FileResponse(services.open_file(get_experiment(request.user, name), path), as_attachment=True)


@login_required
@require_GET
def everything(request: SignedInRequest, name: str) -> FileResponse:
    """All files of the results as one .zip."""
    experiment = get_experiment(request.user, name)
    return FileResponse(services.archive(experiment), as_attachment=True, filename=f"{experiment.name}.zip")


@login_required
@require_POST
def delete(request: SignedInRequest, name: str) -> HttpResponse:
    """Delete an experiment with its run and its folder."""
    experiment = get_experiment(request.user, name, manage=True)
    remaining = services.delete(user=request.user, experiment=experiment)
    messages.success(request, _("%(name)s and its files are deleted.") % {"name": name})
    if remaining:
        messages.warning(request, _("Some of its files could not be deleted; the server's log names them."))
    return redirect("experiments:list")
