"""What the run page draws and says: stages, charts, and sentences about them."""

from typing import Any

from django.utils.translation import gettext as _

from experiments.curves import Loss, Scores, loss_and_score_charts

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


def charts(points: list[Point]) -> list[dict[str, Any]]:
    """Return the charts of the loss and of the metrics on held-out rows."""
    steps = [p for p in points if p.loss is not None]
    evaluations = [p for p in points if p.accuracy is not None]
    return loss_and_score_charts(
        [Loss(p.step, p.loss) for p in steps],
        [Scores(p.step, p.accuracy, p.macro_f1) for p in evaluations],
        loss_sentence(steps),
        accuracy_sentence(evaluations),
    )


def loss_sentence(points: list[Point]) -> str:
    if len(points) < 2:
        return _("The loss curve appears after the first steps.")
    first = points[0].loss or 0.0
    last = points[-1].loss or 0.0
    direction = _("falling") if last < first else _("not falling")
    sentence = _("Training loss %(last).3f at step %(step)d, %(word)s from %(first).3f.")
    return sentence % {"last": last, "step": points[-1].step, "word": direction, "first": first}


def accuracy_sentence(points: list[Point]) -> str:
    if not points:
        return _("Accuracy on held-out rows appears after the first evaluation.")
    best = max(points, key=lambda p: p.accuracy or 0)
    sentence = _("Best accuracy on held-out rows so far: %(best).1f %% at step %(step)d.")
    return sentence % {"best": 100 * (best.accuracy or 0), "step": best.step}


def verdict(task: Task, points: list[Point]) -> str:
    """Return how far the best evaluation is above the majority-class baseline, and whether it still improves."""
    version = task.experiment.version
    accuracies = [p.accuracy for p in points if p.accuracy is not None]
    if not accuracies or version is None:
        return ""
    best = max(accuracies)
    margin = 100 * (best - max(version.labels.values()) / version.rows)
    if margin <= 0:
        return _("Not better than the majority-class baseline.")
    if task.status != Status.STARTED or len(accuracies) == 1:
        sentence = _("%(points).0f points above the majority-class baseline.")
    elif accuracies[-1] >= best:
        sentence = _("%(points).0f points above the majority-class baseline, still improving.")
    else:
        sentence = _("%(points).0f points above the majority-class baseline, no longer improving.")
    return sentence % {"points": margin}


def quarter(task: Task) -> int:
    """Return the quarter of a run, 0 to 3, and 4 when it has ended. Screen readers are told when it changes."""
    return 4 if task.status in ENDED else task.percent // 25


def announcement(task: Task) -> str:
    """Return what a screen reader is told in this quarter of the run."""
    if task.status in ENDED:
        return str(task.get_status_display())
    reached = quarter(task)
    return _("%(percent)d %% done.") % {"percent": 25 * reached} if reached else ""
