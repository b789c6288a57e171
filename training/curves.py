"""What the run page draws and says: stages, charts, and sentences about them."""

from typing import Any

from django.utils.translation import gettext as _

from experiments import remedies, results
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
    """Return the charts of the loss and of the scores on held-out rows; both say what is missing before there is a curve."""
    steps = [p for p in points if p.loss is not None]
    evaluations = [p for p in points if p.accuracy is not None]
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
    accuracy_sentence = _("Accuracy on held-out rows appears after the first evaluation.")
    if evaluations:
        best = max(evaluations, key=lambda p: p.accuracy or 0)
        sentence = _("Best accuracy on held-out rows so far: %(best).1f %% at step %(step)d.")
        accuracy_sentence = sentence % {"best": 100 * (best.accuracy or 0), "step": best.step}
    return loss_and_score_charts(
        [Loss(p.step, p.loss) for p in steps],
        [Scores(p.step, p.accuracy, p.macro_f1) for p in evaluations],
        loss_sentence,
        accuracy_sentence,
    )


def verdict(task: Task, points: list[Point]) -> str:
    """Return how far the best evaluation is above the majority-class baseline, and whether it still improves."""
    if remedies.diagnose(task.experiment.metrics, task.experiment.config):
        return results.verdict(task.experiment.metrics)  # as on the page of the results
    version = task.experiment.version
    accuracies = [p.accuracy for p in points if p.accuracy is not None]
    if not accuracies or version is None:
        return ""
    best = max(accuracies)
    margin = 100 * (best - max(version.labels.values()) / version.rows)
    if margin <= 0:  # the verdict of a finished run also says whether it finds the other labels
        return results.verdict(task.experiment.metrics) or _("Not better than the majority-class baseline.")
    if task.status != Status.STARTED or len(accuracies) == 1:
        sentence = _("%(points).0f points above the majority-class baseline.")
    elif accuracies[-1] >= best:
        sentence = _("%(points).0f points above the majority-class baseline, still improving.")
    else:
        sentence = _("%(points).0f points above the majority-class baseline, no longer improving.")
    return sentence % {"points": margin}


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
