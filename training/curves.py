"""What the run page draws and says: stages, charts, and sentences about them."""

from typing import Any

from django.utils.translation import gettext as _

from experiments import remedies, verdicts
from experiments.curves import Loss, Scores, find_best, loss_and_score_charts
from experiments.task_types import METRIC_TITLES, TASK_TYPES, USUAL

from .models import ENDED, Point, Stage, Status, Task


def stepper(task: Task) -> list[dict[str, str]]:
    """Return the stages in order, each with the state done, current, todo or failed."""
    current = Stage.values.index(task.stage)
    states = ["done" if i < current else "todo" for i in range(len(Stage))]
    if task.status in (Status.FAILURE, Status.CANCELLED):
        states[current] = "failed"
    else:
        states[current] = "done" if task.status == Status.SUCCESS else "current"
    return [{"name": str(stage.label), "state": state} for stage, state in zip(Stage, states, strict=True)]


def charts(task_type: str, points: list[Point]) -> list[dict[str, Any]]:
    """Return the charts of the loss and of the scores on held-out rows; both say what is missing before there is a curve."""
    steps = [p for p in points if p.loss is not None]
    evaluations = evaluations_of(task_type, points)
    loss_sentence = _("The loss curve appears after the first steps.")
    if len(steps) >= 2:
        first = steps[0].loss or 0.0
        last = steps[-1].loss or 0.0
        direction = _("falling") if last < first else _("not falling")
        loss_sentence = _("Training loss %(last).3f at step %(step)d, %(word)s from %(first).3f.") % {
            "last": last,
            "step": steps[-1].step,
            "word": direction,
            "first": first,
        }
    metric = TASK_TYPES[task_type].curves[0]
    score_sentence = _("Accuracy on held-out rows appears after the first evaluation.")
    if task_type != USUAL:
        score_sentence = _("The metrics on held-out rows appear after the first evaluation.")
    if evaluations:
        best = find_best(task_type, evaluations)
        sentence = _("Best accuracy on held-out rows so far: %(best).1f %% at step %(step)d.")
        facts: dict[str, object] = {"best": 100 * best.metrics[metric], "step": best.step}
        if task_type != USUAL:
            sentence = _("%(metric)s on held-out rows, best so far: %(best).4g at step %(step)d.")
            facts |= {"best": best.metrics[metric], "metric": METRIC_TITLES[metric]}
        score_sentence = sentence % facts
    return loss_and_score_charts(
        task_type, [Loss(p.step, p.loss) for p in steps], evaluations, loss_sentence, score_sentence
    )


def evaluations_of(task_type: str, points: list[Point]) -> list[Scores]:
    """Return the evaluations among the points, with the metrics of the task type."""
    name = TASK_TYPES[task_type].curves[0]
    return [Scores(point.step, point.metrics) for point in points if name in point.metrics]


def verdict(task: Task, points: list[Point]) -> str:
    """Return how far the best evaluation is above the majority-class baseline, and whether it still improves."""
    if remedies.diagnose(task.experiment.metrics, task.experiment.config):
        return verdicts.verdict(task.experiment.metrics)  # as on the page of the results
    if task.experiment.task_type != USUAL:
        evaluations = evaluations_of(task.experiment.task_type, points)
        return verdicts.verdict(task.experiment.metrics) or describe_progress(task, evaluations)
    version = task.experiment.version
    accuracies = [p.accuracy for p in points if p.accuracy is not None]
    if not accuracies or version is None:
        return ""
    best = max(accuracies)
    margin = 100 * (best - max(version.labels.values()) / version.rows)
    if margin <= 0:  # the verdict of a finished run also says whether it finds the other labels
        return verdicts.verdict(task.experiment.metrics) or _("Not better than the majority-class baseline.")
    if task.status != Status.STARTED or len(accuracies) == 1:
        sentence = _("%(points).0f points above the majority-class baseline.")
    elif accuracies[-1] >= best:
        sentence = _("%(points).0f points above the majority-class baseline, still improving.")
    else:
        sentence = _("%(points).0f points above the majority-class baseline, no longer improving.")
    return sentence % {"points": margin}


def describe_progress(task: Task, evaluations: list[Scores]) -> str:
    """Return the score of the latest evaluation of a run in progress, and whether it still improves."""
    if not evaluations:
        return ""
    facts = TASK_TYPES[task.experiment.task_type]
    name = facts.curves[0]
    sentence = _("%(metric)s: %(value).4g.")
    if task.status == Status.STARTED and len(evaluations) > 1:
        is_best = find_best(task.experiment.task_type, evaluations) == evaluations[-1]
        sentence = (
            _("%(metric)s: %(value).4g, still improving.")
            if is_best
            else _("%(metric)s: %(value).4g, no longer improving.")
        )
    return sentence % {"metric": METRIC_TITLES[name], "value": evaluations[-1].metrics[name]}


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
    return quarter, _("%(percent)d %% done.") % {"percent": 25 * quarter} if quarter else ""
