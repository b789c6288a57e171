"""What the run page draws and says."""

from typing import Any

from django.utils.translation import gettext as _

from experiments.curves import MOST_POINTS, chart

from .models import ENDED, Point, Stage, Status, Task


def stepper(task: Task) -> list[dict[str, str]]:
    """The stages in order, each done, current, todo or failed."""
    order = Stage.values
    here = order.index(task.stage)
    stopped = task.status in (Status.FAILURE, Status.CANCELLED)
    states = ["done" if i < here else "todo" for i in range(len(order))]
    states[here] = "failed" if stopped else "done" if task.status == Status.SUCCESS else "current"
    return [{"name": str(stage.label), "state": state} for stage, state in zip(Stage, states, strict=True)]


def charts(points: list[Point]) -> list[dict[str, Any]]:
    """Loss and metric curves, at most MOST_POINTS points each."""
    steps = [p for p in points if p.loss is not None]
    evaluations = [p for p in points if p.accuracy is not None]
    return [
        line("loss", _("Loss"), loss_sentence(steps), thin(steps), (("loss", _("training loss")),)),
        line(
            "metrics", _("Accuracy"), accuracy_sentence(evaluations), evaluations,
            (("accuracy", _("accuracy")), ("macro_f1", _("macro F1"))),
        ),
    ]  # fmt: skip


def line(
    key: str, title: str, sentence: str, points: list[Point], fields: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    series = {label: [getattr(p, field) for p in points] for field, label in fields}
    return chart(key, title, sentence, [p.step for p in points], series)


def thin(points: list[Point]) -> list[Point]:
    """Every n-th point, and always the last."""
    every = max(1, len(points) // MOST_POINTS)
    return points[::-every][::-1]


def loss_sentence(points: list[Point]) -> str:
    if len(points) < 2:
        return _("The loss curve begins with the first steps.")
    first, last = points[0].loss or 0.0, points[-1].loss or 0.0
    word = _("falling") if last < first else _("not falling")
    return _("Training loss %(last).3f at step %(step)d, %(word)s from %(first).3f.") % {
        "last": last, "step": points[-1].step, "word": word, "first": first,
    }  # fmt: skip


def accuracy_sentence(points: list[Point]) -> str:
    if not points:
        return _("Accuracy on held-out rows appears after the first evaluation.")
    best = max(points, key=lambda p: p.accuracy or 0)
    return _("Best accuracy on held-out rows so far: %(best).1f %% at step %(step)d.") % {
        "best": 100 * (best.accuracy or 0), "step": best.step,
    }  # fmt: skip


def verdict(task: Task, points: list[Point]) -> str:
    """How far the best evaluation is from always saying the commonest label, and whether it still improves."""
    version = task.experiment.version
    found = [p.accuracy for p in points if p.accuracy is not None]
    if not found or version is None:
        return ""
    ahead = 100 * (max(found) - max(version.labels.values()) / version.rows)
    if ahead <= 0:
        return _("Not better than always saying the commonest label.")
    sentence = _("Better than always saying the commonest label by %(ahead).0f points.")
    if task.status == Status.STARTED and len(found) > 1:
        improving = found[-1] >= max(found)
        sentence = (
            _("Better than always saying the commonest label by %(ahead).0f points, still improving.")
            if improving
            else _("Better than always saying the commonest label by %(ahead).0f points, no longer improving.")
        )
    return sentence % {"ahead": ahead}


def quarter(task: Task) -> int:
    """0 to 3 while it runs, 4 when it has ended: what a screen reader is told of."""
    return 4 if task.status in ENDED else task.percent // 25


def said(task: Task) -> str:
    """What a screen reader hears: a quarter, half, three quarters, and the end."""
    if task.status in ENDED:
        return str(task.get_status_display())
    return ["", _("A quarter is done."), _("Half is done."), _("Three quarters are done.")][quarter(task)]
