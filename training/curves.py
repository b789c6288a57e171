"""What the run page draws and says: stages, charts, and sentences about them."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from django.utils.translation import gettext as _

from datasets_app.models import Version
from experiments import remedies, verdicts
from experiments.curves import (
    Loss,
    Marks,
    Scores,
    best_checkpoint_step,
    course_charts,
    drawn_baselines,
    find_best,
    loss_and_score_charts,
    points_address,
)
from experiments.task_types import BASELINE_TITLES, METRIC_TITLES, TASK_TYPES, USUAL

from .models import ENDED, Point, Stage, Status, Task


def stepper(task: Task) -> list[dict[str, str]]:
    """Return the stages in order, each with the state done, current, todo, failed or cancelled."""
    current = Stage.values.index(task.stage)
    states = ["done" if i < current else "todo" for i in range(len(Stage))]
    if task.status in (Status.FAILURE, Status.CANCELLED):
        states[current] = "cancelled" if task.status == Status.CANCELLED else "failed"
    else:
        states[current] = "done" if task.status == Status.SUCCESS else "current"
    return [{"name": str(stage.label), "state": state} for stage, state in zip(Stage, states, strict=True)]


def charts(task_type: str, points: list[Point], task: Task | None = None) -> list[dict[str, Any]]:
    """Return the charts of a run: loss, scores on held-out rows and, with `task`, the course of speed and memory.

    Each says what is missing before there is a curve. `points` may be some of the run's points.
    """
    losses = [read_step(point) for point in points if point.loss is not None]
    evaluations = evaluations_of(task_type, points)
    loss_sentence = _("The loss curve appears after the first steps.")
    if len(losses) >= 2:
        first = losses[0].loss or 0.0
        last = losses[-1].loss or 0.0
        direction = _("falling") if last < first else _("not falling")
        loss_sentence = _("Training loss %(last).3f at step %(step)d, %(word)s from %(first).3f.") % {
            "last": last,
            "step": losses[-1].step,
            "word": direction,
            "first": first,
        }
    metric = TASK_TYPES[task_type].curves[0]
    score_sentence = _("Accuracy on held-out rows appears after the first evaluation.")
    if task_type != USUAL:
        score_sentence = _("The metrics on held-out rows appear after the first evaluation.")
    best = find_best(task_type, evaluations) if evaluations else None
    if best:
        sentence = _("Best accuracy on held-out rows so far: %(best).1f%% at step %(step)d.")
        facts: dict[str, object] = {"best": 100 * best.metrics[metric], "step": best.step}
        if task_type != USUAL:
            sentence = _("%(metric)s on held-out rows, best so far: %(best).4g at step %(step)d.")
            facts |= {"best": best.metrics[metric], "metric": METRIC_TITLES[metric]}
        score_sentence = sentence % facts
    marks = make_marks(task, task_type, best.step if best else None) if task else Marks()
    drawn = loss_and_score_charts(task_type, losses, evaluations, loss_sentence, score_sentence, marks)
    return [*drawn, *course_charts(losses, marks)] if task else drawn


def read_step(point: Point) -> Loss:
    """Return what a point holds of a training step."""
    return Loss(
        step=point.step,
        loss=point.loss,
        epoch=point.epoch,
        seconds=point.runtime_s,
        tokens=point.tokens,
        learning_rate=point.learning_rate,
        grad_norm=point.grad_norm,
        tokens_per_second=point.tokens_per_second,
        memory_mb=point.memory_mb,
        gpu_memory_mb=point.gpu_memory_mb,
    )


def make_marks(task: Task, task_type: str, best_step: int | None) -> Marks:
    """Return what is drawn into a run's charts; `best_step` is that of the best evaluation so far."""
    metrics = task.experiment.metrics
    baselines = drawn_baselines(metrics, task_type)
    version = task.experiment.version
    if not baselines and task_type == USUAL and version is not None and version.rows:
        # The run measures its baselines at its end.
        baselines = {str(BASELINE_TITLES["majority_accuracy"]): majority_share(version)}
    first_score = _("First point after the first evaluation.")
    step = first_evaluation_step(task)
    if step:
        first_score = _("First point after step %(step)s.") % {"step": f"{step:,}"}
    none_recorded = _("Nothing was recorded.")
    return Marks(
        baselines=baselines,
        best_step=best_checkpoint_step(metrics) or best_step,
        source=points_address(task.experiment),
        first_loss=none_recorded if task.finished else _("First point after step %(step)s.") % {"step": 1},
        first_score=none_recorded if task.finished else first_score,
    )


def majority_share(version: Version) -> float:
    """Return the share of the most frequent label among all rows: which of them are held out is known when the run ends."""
    return max(version.labels.values()) / version.rows


def first_evaluation_step(task: Task) -> int | None:
    """Return the step of a run's first evaluation; None before the run has prepared its data."""
    if not task.total_steps:
        return None
    training = task.experiment.config.get("training", {})
    strategy = training.get("eval_strategy")
    step = task.total_steps
    if strategy == "steps":
        step = training["eval_steps"]
    elif strategy == "epoch" and task.facts.get("train_rows"):
        batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
        step = ceil((task.facts.get("windows") or task.facts["train_rows"]) / batch)
    return min(step, int(task.total_steps))


def evaluations_of(task_type: str, points: list[Point]) -> list[Scores]:
    """Return the evaluations among the points, with the metrics of the task type."""
    name = TASK_TYPES[task_type].curves[0]
    return [
        Scores(point.step, point.metrics, point.epoch, point.runtime_s, point.tokens)
        for point in points
        if name in point.metrics
    ]


def verdict(task: Task, evaluations: Sequence[Scores]) -> str:
    """Return in a sentence what has come of the run, or what has come of it so far."""
    experiment = task.experiment
    if task.status == Status.SUCCESS:
        return verdicts.verdict(experiment.metrics) or _("The run is done.")
    if task.status == Status.PENDING:
        return _("This run is queued, so there are no results yet.")
    if task.status == Status.STARTED:
        return describe_progress(task, evaluations) or _(
            "This run is in progress. Its score appears here once evaluated."
        )
    if task.status == Status.CANCELLED:
        sentence = _("This run was cancelled before it ended, so it left no model.")
    else:
        sentence = _("This run failed, so it left no model.")
    if evaluations:
        best = find_best(experiment.task_type, evaluations)
        reached = _("Best so far: %(metric)s %(value).4f at step %(step)d.")
        name = TASK_TYPES[experiment.task_type].curves[0]
        sentence += " " + reached % {"metric": METRIC_TITLES[name], "value": best.metrics[name], "step": best.step}
    return sentence


def describe_progress(task: Task, evaluations: Sequence[Scores]) -> str:
    """Return how far a run in progress is above its baseline, and whether it still improves; empty if not evaluated yet."""
    if not evaluations:
        return ""
    experiment = task.experiment
    best = find_best(experiment.task_type, evaluations)
    name = TASK_TYPES[experiment.task_type].curves[0]
    if experiment.task_type == USUAL and experiment.version:
        margin = 100 * (best.metrics[name] - majority_share(experiment.version))
        if margin <= 0:
            return _("Not better than the majority-class baseline.")
        sentence = _("%(points).0f points above the majority-class baseline.")
        improving = _("%(points).0f points above the majority-class baseline, still improving.")
        stalled = _("%(points).0f points above the majority-class baseline, no longer improving.")
        facts: dict[str, object] = {"points": margin}
    else:
        sentence = _("%(metric)s: %(value).4g.")
        improving = _("%(metric)s: %(value).4g, still improving.")
        stalled = _("%(metric)s: %(value).4g, no longer improving.")
        facts = {"metric": METRIC_TITLES[name], "value": evaluations[-1].metrics[name]}
    if len(evaluations) > 1:
        sentence = improving if evaluations[-1].metrics[name] == best.metrics[name] else stalled
    return sentence % facts


def announcement(task: Task, quarter_on_page: str) -> tuple[int, str]:
    """Return the quarter of a run, 0 to 3 or 4 when it has ended, and what a screen reader is told when it changes.

    Polls come every second; an announcement with each of them would drown everything else that is read aloud.
    """
    quarter = 4 if task.status in ENDED else task.percent // 25
    if quarter_on_page in ("", str(quarter)):
        return quarter, ""
    if task.status in ENDED:
        diagnosis = remedies.diagnose(task.experiment.metrics, task.experiment.config)
        return quarter, diagnosis.headline if diagnosis else str(task.get_status_display())
    return quarter, _("%(percent)d%% done.") % {"percent": 25 * quarter} if quarter else ""
