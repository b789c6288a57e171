"""What the page of a run shows: what stands above the tabs, each tab, and what a poll brings. Only one tab is computed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml
from django.db.models import Count, Max, Q
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.http import SignedInRequest
from accounts.permissions import can_manage, visible
from datasets_app.models import Dataset
from engine.config import RunConfig
from engine.task_types import LOWER_IS_BETTER
from experiments import remedies, results
from experiments.compare import flatten_config
from experiments.curves import run_charts
from experiments.models import Experiment
from experiments.registry.card import metrics_at
from experiments.registry.files import checkpoints
from experiments.registry.selectors import models_for
from experiments.result_charts import describe_calibration, scores_chart
from experiments.selectors import files
from experiments.task_types import METRIC_TITLES, USUAL, baseline_figures, key_figures, task_type_of
from experiments.verdicts import describe_scores
from experiments.wrong_rows import find_confusion, has_wrong_rows
from web.errors import NotFoundError
from web.requests import parse_whole_number
from web.sentences import join_translated, translate_packed

from . import answers, curves, selectors
from .base_models import LANGUAGE_NOTICE, find_language_mismatch
from .copy_as import copies
from .figures import NONE, average_usage, run_figures
from .models import LogLine, Status, Task

OVERVIEW = "overview"
LOG_TAIL = 12  # lines on the overview
LOG_LINES = 1000  # lines on the tab of the log; the download has all
CHECKPOINT_FOLDER = "artifacts/checkpoints/"

Context = dict[str, Any]


class Tab(NamedTuple):
    key: str
    title: str | Promise


ERRORS = Tab("errors", gettext_lazy("Errors"))
ANSWERS = Tab("answers", gettext_lazy("Answers"))
RESULT_TABS = {
    "sequence_classification": [ERRORS, Tab("labels", gettext_lazy("Per label"))],
    "multi_label_classification": [ERRORS, Tab("labels", gettext_lazy("Per label"))],
    "regression": [ERRORS],
    "token_classification": [ERRORS, Tab("labels", gettext_lazy("Per entity"))],
    "causal_lm": [ANSWERS],
    "preference": [ANSWERS],
}


def tabs_for(task: Task) -> list[Tab]:
    """Return the tabs of a run. Those of results are there from the start, so that the others never move."""
    return [
        Tab(OVERVIEW, gettext_lazy("Overview")),
        *RESULT_TABS[task.experiment.task_type],
        Tab("log", gettext_lazy("Log")),
        Tab("config", gettext_lazy("Configuration")),
        Tab("files", gettext_lazy("Files")),
        Tab("access", gettext_lazy("Access")),
    ]


def page_context(request: SignedInRequest, task: Task) -> Context:
    """Return what the page shows with the tab that the address names, an unknown one being the overview."""
    tabs = tabs_for(task)
    key = request.GET.get("tab", OVERVIEW)
    context = head_context(request, task)
    context |= {"tabs": tabs, "tab": key if key in dict(tabs) else OVERVIEW}
    context["tab_template"] = f"training/run/{context['tab']}.html"
    return context | TAB_CONTEXTS[context["tab"]](request, task)


def head_context(request: SignedInRequest, task: Task) -> Context:
    """Return what is above the tabs."""
    experiment = task.experiment
    evaluated = Q(eval_loss__isnull=False) | Q(accuracy__isnull=False)  # older rows lack the loss
    evaluations = curves.evaluations_of(experiment.task_type, list(task.points.filter(evaluated)))
    quarter, announcement = curves.announcement(task, request.GET.get("heard", ""))
    diagnosis = remedies.diagnose(experiment.metrics, experiment.config)
    data_are_at_fault = diagnosis is not None and diagnosis.cause == "data"
    return {
        "task": task,
        "experiment": experiment,
        "state": experiment.state,
        "title": page_title(task),
        "steps": curves.stepper(task),
        "figures": run_figures(task, evaluations),
        "verdict": join_translated([curves.verdict(task, evaluations), selectors.note_for(task)]),
        "diagnosis": diagnosis,
        "can_search_labels": data_are_at_fault and experiment.version and experiment.version.has_single_labels,
        "quarter": quarter,
        "announcement": announcement,
        "state_token": state_token(task),
        "manages": can_manage(request.user, task),
        **checkpoint_context(experiment, request.GET.get("checkpoint", "best")),
    }


def page_title(task: Task) -> str:
    """Return the title of the browser's tab: how far the run is, then its state."""
    if task.status == Status.STARTED:
        return f"{task.percent}% · {task.experiment.name}"
    return f"{task.experiment.name}: {task.experiment.state.title}"


def state_token(task: Task) -> str:
    """Return what changes when chip and buttons do."""
    return f"{task.status}-{task.attempt}-{int(task.cancel_requested)}"


def checkpoint_context(experiment: Experiment, chosen: str) -> Context:
    """Return the chosen checkpoint and its scores, which are shown for another one than the best."""
    if chosen == "best":
        return {"chosen": chosen, "at": ""}
    if chosen not in checkpoints(experiment):
        raise NotFoundError(_("This experiment has not kept this checkpoint."))
    return {"chosen": chosen, "at": describe_scores(metrics_at(experiment, chosen))}


def overview_context(request: SignedInRequest, task: Task) -> Context:
    """Return charts, notices, all metrics, and the end of the log."""
    experiment = task.experiment
    metrics = experiment.metrics
    lines = list(task.log.order_by("-pk")[:LOG_TAIL])[::-1]
    context = {
        **charts_context(task),
        "log": lines,
        "last_line": lines[-1].pk if lines else 0,
        "notices": notices_of(task),
        "usage": average_usage(task) if task.finished else [],
        "is_result": experiment.is_ready,
        "metrics": key_figures(metrics) if experiment.is_ready else [],
        "test_figures": key_figures({**metrics, "eval": metrics["test"]})[:1] if metrics.get("test") else [],
        "baselines": baseline_figures(metrics),
        "skipped": results.skipped_sentences(metrics.get("data", {})),
        "models": [],
    }
    if experiment.is_ready:
        context["models"] = models_for(request.user).filter(versions__experiment=experiment).distinct()
    return context


def charts_context(task: Task) -> Context:
    """Return the charts of all points; of runs without any, those of the history in metrics.json."""
    points = selectors.points_to_draw(task)
    charts = [] if points else run_charts(task.experiment)
    return {
        "charts": charts or curves.charts(task.experiment.task_type, points, task),
        "points_token": points_token(task),
    }


def points_token(task: Task) -> str:
    """Return what changes when the curves do. An evaluation is a point of its step, which may be there already."""
    drawn = task.points.aggregate(step=Max("step"), evaluations=Count("eval_loss"))
    return f"{drawn['step'] or 0}-{drawn['evaluations']}"


def answers_token(task: Task) -> str:
    """Return what changes when there are new answers."""
    return str(task.points.exclude(answers=[]).count())


def notices_of(task: Task) -> list[dict[str, str]]:
    """Return the notices of the run, without those that the page tells in other words.

    They are in the reader's language, but for those that an earlier release has stored in English.
    """
    experiment = task.experiment
    notices = list(task.notices)
    stored = {notice["message"] for notice in notices}
    notices += [notice for notice in experiment.metrics.get("notices", []) if notice["message"] not in stored]
    hidden = results.SHOWN_OTHERWISE if experiment.metrics else ()
    mismatch = None
    if any(notice["code"] == LANGUAGE_NOTICE for notice in notices):
        mismatch = find_language_mismatch(experiment.version, experiment.base_model)
    return [
        mismatch.as_notice()
        if mismatch and notice["code"] == LANGUAGE_NOTICE
        else notice | {"message": translate_packed(notice.get("sentence"), notice["message"])}
        for notice in notices
        if notice["code"] not in hidden
    ]


def errors_context(request: SignedInRequest, task: Task) -> Context:
    """Return which held-out rows are answered wrongly, by what exists for the task type."""
    experiment = task.experiment
    metrics = experiment.metrics
    counts = metrics.get("eval", {}).get("confusion_matrix", [])
    label, predicted = request.GET.get("label", ""), request.GET.get("predicted", "")
    data = experiment.version.dataset if experiment.version else None
    return {
        "has_wrong_rows": has_wrong_rows(experiment),
        "confusion": find_confusion(experiment, label, predicted),
        "sees_data": data is not None and visible(request.user, Dataset.objects.filter(pk=data.pk)).exists(),
        "manages_data": data is not None and can_manage(request.user, data),
        "result_template": f"experiments/results/{task_type_of(metrics)}.html",
        "matrix": results.matrix_rows(experiment.labels, counts),
        "confusions": results.top_confusions(experiment.labels, counts),
        "worst": results.worst_rows(metrics),
        "scores_chart": scores_chart(metrics),
        "calibration": describe_calibration(metrics),
    }


def log_context(request: SignedInRequest, task: Task) -> Context:
    lines = list(task.log.order_by("-pk")[:LOG_LINES])[::-1]
    count = task.log.count() if len(lines) == LOG_LINES else len(lines)
    return {
        "log": lines,
        "last_line": lines[-1].pk if lines else 0,
        "line_count": count,
        "log_file": (task.experiment.folder / "logs.txt").is_file(),
    }


def config_context(request: SignedInRequest, task: Task) -> Context:
    """Return the settings that differ from the defaults, then all of them."""
    config = task.experiment.config
    source = visible(request.user, Experiment.objects.filter(pk=task.experiment.cloned_from_id or 0)).first()
    defaults = RunConfig.parse({"task": config.get("task", USUAL)}).model_dump(mode="json")
    return {
        "changed": changed_settings(config, defaults),
        "source": source,
        "changed_from_source": changed_settings(config, source.config) if source else [],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "copies": copies(request, config),
    }


def changed_settings(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[Context]:
    """Return the settings that differ from those of another configuration: {name, value, default}.

    Without what the head of the page shows.
    """
    defaults = flatten_config(reference)
    return [
        {
            "name": name,
            "value": remedies.shown(value),
            "default": NONE if defaults.get(name) is None else remedies.shown(defaults[name]),
        }
        for name, value in flatten_config(config).items()
        if name not in ("experiment_name", "task", "data.dataset_name") and value != defaults.get(name)
    ]


def files_context(request: SignedInRequest, task: Task) -> Context:
    """Return the files, those of checkpoints by themselves, and the program that uses the chosen checkpoint."""
    experiment = task.experiment
    entries = files(experiment)
    in_checkpoints = [entry for entry in entries if entry["path"].startswith(CHECKPOINT_FOLDER)]
    available = checkpoints(experiment)
    chosen = request.GET.get("checkpoint", "best")
    metric = experiment.config.get("training", {}).get("metric_for_best_model") or experiment.score_name
    adapter = "artifacts/final_model" if chosen == "best" else available[chosen]["path"]
    return {
        "is_result": experiment.is_ready,
        "files": [entry for entry in entries if entry not in in_checkpoints],
        "checkpoint_files": in_checkpoints,
        "checkpoint_bytes": sum(entry["size"] for entry in in_checkpoints),
        "checkpoints": available,
        "lower_is_better": metric in LOWER_IS_BETTER,
        "metric_title": METRIC_TITLES.get(metric, metric),
        "code": results.plain_peft(experiment, adapter) if experiment.is_ready else "",
    }


TAB_CONTEXTS: dict[str, Callable[[SignedInRequest, Task], Context]] = {
    OVERVIEW: overview_context,
    "errors": errors_context,
    "labels": lambda request, task: {
        "labels": results.label_rows(task.experiment.metrics),
        "task_type": task.experiment.task_type,
    },
    # What the model writes to held-out prompts, also while the run is in progress.
    "answers": lambda request, task: {"answers": answers.answers_of(task), "points_token": answers_token(task)},
    "log": log_context,
    "config": config_context,
    "files": files_context,
    "access": lambda request, task: {},
}


def poll_context(request: SignedInRequest, task: Task) -> Context:
    """Return what has changed since the page, or the last poll, was rendered: the address says what is there already.

    state, points: the tokens of what is shown. line: the last line of the log. tab: the one that is open.
    """
    context = head_context(request, task)
    tab = request.GET.get("tab", OVERVIEW)
    tab = tab if tab in dict(tabs_for(task)) else OVERVIEW
    context |= {
        "polled": True,
        "tab": tab,
        "is_new_state": request.GET.get("state", "") != context["state_token"],
        "points_token": request.GET.get("points", ""),
        "new_lines": [],
        "last_line": parse_whole_number(request.GET.get("line", "")) or 0,
    }
    if tab in (OVERVIEW, "log"):
        lines: list[LogLine] = list(task.log.filter(pk__gt=context["last_line"]).order_by("pk")[:LOG_LINES])
        context |= {"new_lines": lines, "last_line": lines[-1].pk if lines else context["last_line"]}
    if tab == OVERVIEW and points_token(task) != context["points_token"]:
        context |= charts_context(task)
    has_new_answers = tab == "answers" and answers_token(task) != context["points_token"]
    if task.finished and tab == OVERVIEW:
        context |= {key: value for key, value in overview_context(request, task).items() if key not in context}
    elif has_new_answers or (task.finished and tab not in ("log", "config")):
        context |= TAB_CONTEXTS[tab](request, task) | {"tab_template": f"training/run/{tab}.html"}
    return context
