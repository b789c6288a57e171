"""The curves of training runs: loss and scores of one, and the losses of several."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from web.charts import chart, thin_points

from .models import Experiment
from .task_types import METRIC_TITLES, TASK_TYPES, USUAL, task_type_of


class Loss(NamedTuple):
    step: int
    loss: float | None


class Scores(NamedTuple):
    """The metrics of an evaluation, by name."""

    step: int
    metrics: Mapping[str, float]


def loss_and_score_charts(
    task_type: str, losses: Sequence[Loss], scores: Sequence[Scores], loss_sentence: str, score_sentence: str
) -> list[dict[str, Any]]:
    """Return the two charts of one run: its training loss, and the metrics of its task type on held-out rows."""
    losses = thin_points(losses)
    scores = thin_points(scores)
    facts = TASK_TYPES[task_type]
    is_usual = task_type == USUAL
    titles = {"accuracy": _("accuracy"), "macro_f1": _("macro F1")} if is_usual else METRIC_TITLES
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
            str(facts.y_label),
            score_sentence,
            [point.step for point in scores],
            {str(titles[name]): [point.metrics.get(name) for point in scores] for name in facts.curves},
            x_label=_("step"),
            y_label=str(facts.y_label),
            key="metrics",
        ),
    ]


def find_best(task_type: str, scores: Sequence[Scores]) -> Scores:
    """Return the evaluation with the best value of the first curve of the task type; the earliest of several."""
    facts = TASK_TYPES[task_type]
    best = min if facts.is_error else max
    return best(scores, key=lambda point: point.metrics[facts.curves[0]])


def best_sentence(task_type: str, best: Scores) -> str:
    """Return the sentence about the best evaluation of a finished run."""
    if task_type == USUAL:
        sentence = _("Accuracy on held-out rows was best at step %(step)d: %(best).1f %%.")
        return sentence % {"step": best.step, "best": 100 * best.metrics["accuracy"]}
    name = TASK_TYPES[task_type].curves[0]
    sentence = _("%(metric)s on held-out rows was best at step %(step)d: %(best).4g.")
    return sentence % {"metric": METRIC_TITLES[name], "step": best.step, "best": best.metrics[name]}


def run_charts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the charts of loss and scores of one finished run; empty if it has measured only one of them."""
    history = experiment.metrics.get("history", [])
    task_type = task_type_of(experiment.metrics)
    name = f"eval_{TASK_TYPES[task_type].curves[0]}"
    losses = [Loss(entry["step"], entry["loss"]) for entry in history if entry.get("loss") is not None]
    scores = [
        Scores(entry["step"], {key.removeprefix("eval_"): value for key, value in entry.items()})
        for entry in history
        if entry.get(name) is not None
    ]
    if not losses or not scores:
        return []
    loss_sentence = _("Training loss went from %(first).3f to %(last).3f.")
    return loss_and_score_charts(
        task_type,
        losses,
        scores,
        loss_sentence % {"first": losses[0].loss, "last": losses[-1].loss},
        best_sentence(task_type, find_best(task_type, scores)),
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
