"""The curves of training runs: loss and accuracy of one, and the losses of several."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from web.charts import chart, thin_points

from .models import Experiment


class Loss(NamedTuple):
    step: int
    loss: float | None


class Scores(NamedTuple):
    step: int
    accuracy: float | None
    macro_f1: float | None


def loss_and_score_charts(
    losses: Sequence[Loss], scores: Sequence[Scores], loss_sentence: str, accuracy_sentence: str
) -> list[dict[str, Any]]:
    """Return the two charts of one run: its training loss, and its accuracy and macro F1 on held-out rows."""
    losses = thin_points(losses)
    scores = thin_points(scores)
    return [
        chart(
            _("Loss"),
            loss_sentence,
            [point.step for point in losses],
            {_("training loss"): [point.loss for point in losses]},
            x_label=_("step"),
            y_label=_("Loss"),
            key="loss",
        ),
        chart(
            _("Accuracy"),
            accuracy_sentence,
            [point.step for point in scores],
            {
                _("accuracy"): [point.accuracy for point in scores],
                _("macro F1"): [point.macro_f1 for point in scores],
            },
            x_label=_("step"),
            y_label=_("Accuracy"),
            key="metrics",
        ),
    ]


def run_charts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the charts of loss and accuracy of one finished run; empty if it has measured only one of them."""
    history = experiment.metrics.get("history", [])
    losses = [Loss(entry["step"], entry["loss"]) for entry in history if entry.get("loss") is not None]
    evaluations = [entry for entry in history if entry.get("eval_accuracy") is not None]
    if not losses or not evaluations:
        return []
    best = max(evaluations, key=lambda entry: entry["eval_accuracy"])
    loss_sentence = _("Training loss went from %(first).3f to %(last).3f.")
    accuracy_sentence = _("Accuracy on held-out rows was best at step %(step)d: %(best).1f %%.")
    return loss_and_score_charts(
        losses,
        [Scores(entry["step"], entry["eval_accuracy"], entry.get("eval_macro_f1")) for entry in evaluations],
        loss_sentence % {"first": losses[0].loss, "last": losses[-1].loss},
        accuracy_sentence % {"step": best["step"], "best": 100 * best["eval_accuracy"]},
    )


def comparison_chart(experiments: list[Experiment]) -> dict[str, Any] | None:
    """Return the chart of several runs' training losses; None if no run has measured any."""
    losses_by_name: dict[str, dict[int, float]] = {}
    for experiment in experiments:
        history = experiment.metrics.get("history", [])
        entries = thin_points([entry for entry in history if entry.get("loss") is not None])
        if entries:
            losses_by_name[experiment.name] = {entry["step"]: entry["loss"] for entry in entries}
    if not losses_by_name:
        return None
    steps = sorted({step for losses in losses_by_name.values() for step in losses})
    lowest = {name: min(losses.values()) for name, losses in losses_by_name.items()}
    winner = min(lowest, key=lambda name: lowest[name])
    sentence = _("%(name)s has the lowest training loss: %(loss).3f.") % {"name": winner, "loss": lowest[winner]}
    # Runs log at different steps: None where a run has no value at another one's step.
    series = {name: [losses.get(step) for step in steps] for name, losses in losses_by_name.items()}
    return chart(_("Loss"), sentence, steps, series, x_label=_("step"), y_label=_("Loss"), key="loss")
