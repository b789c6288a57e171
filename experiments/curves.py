"""Charts as the pages draw them: a type, labels along x, series, and one sentence that says what the chart shows."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.utils.translation import gettext as _

from .models import Experiment

MOST_POINTS = 300
Point = TypeVar("Point")


def chart(
    key: str, title: str, sentence: str, labels: Sequence[Any], series: Mapping[str, Sequence[float | None]]
) -> dict[str, Any]:
    """Return a line chart over steps. Values are rounded to four digits; None leaves a gap."""
    return {
        "id": key,
        "type": "line",
        "title": title,
        "sentence": sentence,
        "x_label": _("step"),
        "y_label": title,
        "labels": list(labels),
        "series": [
            {"label": label, "data": [None if value is None else round(value, 4) for value in values]}
            for label, values in series.items()
        ],
    }


def thin_points(points: Sequence[Point]) -> list[Point]:
    """Return evenly spaced points, fewer than twice MOST_POINTS; the last one is always kept."""
    every = max(1, len(points) // MOST_POINTS)
    first = (len(points) - 1) % every
    return list(points[first::every])


def run_charts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the charts of loss and accuracy of one finished run; empty if it has measured only one of them."""
    losses = history_with(experiment, "loss")
    evaluations = history_with(experiment, "eval_accuracy")
    if not losses or not evaluations:
        return []
    best = max(evaluations, key=lambda entry: entry["eval_accuracy"])
    loss_sentence = _("Training loss went from %(first).3f to %(last).3f.")
    accuracy_sentence = _("Accuracy on held-out rows was best at step %(step)d: %(best).1f %%.")
    return [
        chart(
            "loss",
            _("Loss"),
            loss_sentence % {"first": losses[0]["loss"], "last": losses[-1]["loss"]},
            [entry["step"] for entry in losses],
            {_("training loss"): [entry["loss"] for entry in losses]},
        ),
        chart(
            "metrics",
            _("Accuracy"),
            accuracy_sentence % {"step": best["step"], "best": 100 * best["eval_accuracy"]},
            [entry["step"] for entry in evaluations],
            {
                _("accuracy"): [entry["eval_accuracy"] for entry in evaluations],
                _("macro F1"): [entry.get("eval_macro_f1") for entry in evaluations],
            },
        ),
    ]


def comparison_chart(experiments: list[Experiment]) -> dict[str, Any] | None:
    """Return the chart of several runs' training losses; None if no run has measured any."""
    losses_by_step: dict[str, dict[int, float]] = {}
    for experiment in experiments:
        if entries := history_with(experiment, "loss"):
            losses_by_step[experiment.name] = {entry["step"]: entry["loss"] for entry in entries}
    if not losses_by_step:
        return None
    steps = sorted({step for losses in losses_by_step.values() for step in losses})
    lowest = {name: min(losses.values()) for name, losses in losses_by_step.items()}
    winner = min(lowest, key=lambda name: lowest[name])
    sentence = _("%(name)s has the lowest training loss: %(loss).3f.") % {"name": winner, "loss": lowest[winner]}
    # Runs log at different steps: None where a run has no value at another one's step.
    series = {name: [losses.get(step) for step in steps] for name, losses in losses_by_step.items()}
    return chart("loss", _("Loss"), sentence, steps, series)


def history_with(experiment: Experiment, field: str) -> list[dict[str, Any]]:
    """Return the entries of metrics.json's history that have the field, thinned for a chart."""
    history = experiment.metrics.get("history", [])
    return thin_points([entry for entry in history if entry.get(field) is not None])
