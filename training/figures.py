"""The key figures of a run: what was measured last while it is in progress, then its result with averages and peaks."""

from collections.abc import Sequence
from typing import NamedTuple

from django.db.models import Avg, Max
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from engine.task_types import LOWER_IS_BETTER
from experiments.curves import Scores, find_best
from experiments.task_types import BASELINE_TITLES, COMPARED, METRIC_TITLES, TASK_TYPES, baseline_difference, in_points
from web.durations import span

from .models import Point, Task

NONE = "–"


class Figure(NamedTuple):
    title: str
    value: str
    note: str = ""  # what the value is of, or what it is compared with


def run_figures(task: Task, evaluations: Sequence[Scores]) -> list[Figure]:
    """Return the figures above the tabs. There are as many before the end as after it, so that nothing below moves."""
    if not task.finished:
        return live_figures(task, evaluations)
    if task.experiment.is_ready:
        return result_figures(task)
    return figures_without_result(task, evaluations)


def live_figures(task: Task, evaluations: Sequence[Scores]) -> list[Figure]:
    latest = task.points.filter(loss__isnull=False).last() or Point()
    memory = Figure(_("Memory"), mebibytes(latest.memory_mb))
    if latest.gpu_memory_mb is not None:
        memory = Figure(_("GPU memory"), mebibytes(latest.gpu_memory_mb))
    return [
        Figure(_("Training loss"), decimal(latest.loss), describe_loss(task)),
        best_score(task, evaluations),
        Figure(_("Tokens per second"), whole(task.tokens_per_second)),
        Figure(_("CPU"), percent(latest.cpu_percent)),
        memory,
        Figure(_("Attempt"), str(max(1, task.attempt))),
    ]


def result_figures(task: Task) -> list[Figure]:
    """Return the scores of the best checkpoint, and what the run took."""
    experiment = task.experiment
    metrics = experiment.metrics
    scores = metrics.get("eval", {})
    intervals = scores.get("intervals", {})
    others = [name for name in TASK_TYPES[experiment.task_type].metrics if name != experiment.score_name]
    figures = []
    for name in (experiment.score_name, others[0]):
        low, high = intervals.get(name) or (None, None)
        note = _("%(low).4f to %(high).4f") % {"low": low, "high": high} if low is not None else ""
        figures.append(Figure(str(METRIC_TITLES[name]), decimal(scores.get(name)), note))
    peak = metrics.get("system", {}).get("peak_memory_mb")
    return [
        *figures,
        better_than_baseline(task),
        Figure(_("Training time"), time_of(experiment.runtime_s), _("steps only")),
        total_time(task),
        Figure(_("Peak memory"), mebibytes(peak)),
    ]


def figures_without_result(task: Task, evaluations: Sequence[Scores]) -> list[Figure]:
    """Return what is known of a run that was cancelled or has failed."""
    latest = task.points.filter(loss__isnull=False).last() or Point()
    usage = average_usage(task)
    return [
        best_score(task, evaluations),
        Figure(_("Training loss"), decimal(latest.loss), describe_loss(task)),
        Figure(_("Steps"), _("%(step)d of %(total)d") % {"step": task.step, "total": task.total_steps}),
        total_time(task),
        *usage[:2],
    ]


def average_usage(task: Task) -> list[Figure]:
    """Return speed, memory and CPU over the whole run, by its points."""
    usage = task.points.aggregate(
        speed=Avg("tokens_per_second"), cpu=Avg("cpu_percent"), memory=Max("memory_mb"), gpu=Max("gpu_memory_mb")
    )
    figures = [
        Figure(_("Tokens per second"), whole(task.experiment.tokens_per_second or usage["speed"]), _("average")),
        Figure(_("Memory"), mebibytes(usage["memory"]), _("peak")),
        Figure(_("CPU"), percent(usage["cpu"]), _("average")),
    ]
    if usage["gpu"] is not None:
        figures.append(Figure(_("GPU memory"), mebibytes(usage["gpu"]), _("peak")))
    return figures


def best_score(task: Task, evaluations: Sequence[Scores]) -> Figure:
    """Return the score at the best evaluation so far."""
    title = str(task.experiment.score_title)
    if not evaluations:
        return Figure(title, NONE, _("not evaluated yet"))
    best = find_best(task.experiment.task_type, evaluations)
    value = best.metrics.get(task.experiment.score_name)
    return Figure(title, decimal(value), _("best so far, at step %(step)d") % {"step": best.step})


def better_than_baseline(task: Task) -> Figure:
    """Return by how much the result is better than without reading the texts."""
    is_error = COMPARED[task.experiment.task_type][0] in LOWER_IS_BETTER
    title = _("Below the baseline") if is_error else _("Above the baseline")
    compared = baseline_difference(task.experiment.metrics)
    if compared is None:
        return Figure(title, NONE)
    difference = compared.difference
    value = f"{difference:.4f}".replace("-", "−") if is_error else in_points(difference)
    return Figure(title, value, f"{BASELINE_TITLES[compared.name]}: {compared.baseline:.4f}")


def total_time(task: Task) -> Figure:
    """Return the time from the start to the end of the last attempt, beside the estimate of the whole run."""
    title = _("Total time") if task.attempt < 2 else _("Time of the last attempt")
    took = None
    if task.started_at and task.ended_at:
        took = max(0.0, (task.ended_at - task.started_at).total_seconds())
    note = _("with loading and saving")
    if task.foreseen:
        note = _("estimated: %(time)s") % {"time": span(task.foreseen["seconds"])}
    return Figure(title, time_of(took), note)


def describe_loss(task: Task) -> str:
    """Return over how many steps a point of the loss curve is averaged."""
    steps = task.experiment.config.get("training", {}).get("logging_steps", 1)
    return ngettext("at the last step", "mean of the last %(n)d steps", steps) % {"n": steps}


def decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def whole(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}%"


def mebibytes(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}\N{NO-BREAK SPACE}MiB"


def time_of(seconds: float | None) -> str:
    return NONE if seconds is None else span(seconds)
