"""Charts as the page draws them: a type, labels along x, series, and one sentence that says what is to be seen."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from .models import Experiment

MOST_POINTS = 300
History = list[dict[str, Any]]


def chart(
    key: str, title: str, sentence: str, labels: Sequence[Any], series: Mapping[str, Sequence[float | None]]
) -> dict[str, Any]:
    """A line chart over steps; values are rounded to four digits, a gap is None."""
    lines = [{"label": label, "data": [rounded(value) for value in values]} for label, values in series.items()]
    return {
        "id": key, "type": "line", "title": title, "sentence": sentence, "x_label": _("step"), "y_label": title,
        "labels": list(labels), "series": lines,
    }  # fmt: skip


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def of(experiment: Experiment) -> list[dict[str, Any]]:
    """Loss and accuracy of one finished run."""
    losses, scores = _with(experiment, "loss"), _with(experiment, "eval_accuracy")
    if not losses or not scores:
        return []
    best = max(scores, key=lambda row: row["eval_accuracy"])
    fell = _("Training loss went from %(first).3f to %(last).3f.") % {
        "first": losses[0]["loss"], "last": losses[-1]["loss"],
    }  # fmt: skip
    peak = _("Accuracy on held-out rows was best at step %(step)d: %(best).1f %%.") % {
        "step": best["step"], "best": 100 * best["eval_accuracy"],
    }  # fmt: skip
    return [
        chart("loss", _("Loss"), fell, _steps(losses), {_("training loss"): [row["loss"] for row in losses]}),
        chart(
            "metrics", _("Accuracy"), peak, _steps(scores),
            {
                _("accuracy"): [row["eval_accuracy"] for row in scores],
                _("macro F1"): [row.get("eval_macro_f1") for row in scores],
            },
        ),
    ]  # fmt: skip


def compared(experiments: list[Experiment]) -> dict[str, Any] | None:
    """The training losses of several runs over their steps; None where none has any."""
    measured = {e.name: {row["step"]: row["loss"] for row in _with(e, "loss")} for e in experiments}
    losses = {name: found for name, found in measured.items() if found}
    if not losses:
        return None
    steps = sorted({step for found in losses.values() for step in found})
    lowest = {name: min(found.values()) for name, found in losses.items()}
    name = min(lowest, key=lambda known: lowest[known])
    sentence = _("The lowest training loss is that of %(name)s: %(loss).3f.") % {"name": name, "loss": lowest[name]}
    return chart(
        "loss", _("Loss"), sentence, steps,
        {name: [found.get(step) for step in steps] for name, found in losses.items()},
    )  # fmt: skip


def _with(experiment: Experiment, field: str) -> History:
    """The entries of metrics.json's history that have this field, thinned, the last one always kept."""
    rows = [row for row in experiment.metrics.get("history", []) if row.get(field) is not None]
    return rows[:: -max(1, len(rows) // MOST_POINTS)][::-1]


def _steps(rows: History) -> list[int]:
    return [row["step"] for row in rows]
