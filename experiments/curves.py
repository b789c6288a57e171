"""The curves of training runs: loss, scores and speed of one, and the losses and scores of several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from django.urls import reverse
from django.utils.translation import gettext as _

from web.charts import MOST_POINTS, Curve, Track, curve_chart, thin_points

from .evaluation_sets import share_evaluation_rows
from .models import Experiment
from .task_types import BASELINE_TITLES, METRIC_TITLES, TASK_TYPES, USUAL, task_type_of

NOISY = ("loss", "grad_norm", "tokens_per_second")  # of training steps: smoothing helps to read them


class Loss(NamedTuple):
    """What was measured at a training step. seconds, tokens: of the training up to it; None in runs of earlier releases."""

    step: int
    loss: float | None
    epoch: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None


class Scores(NamedTuple):
    """The metrics of an evaluation, by name; the rest as in `Loss`."""

    step: int
    metrics: Mapping[str, float]
    epoch: float | None = None
    seconds: float | None = None
    tokens: int | None = None


Measured = TypeVar("Measured", Loss, Scores)


class Marks(NamedTuple):
    """What is drawn into the charts of a run beside its curves.

    baselines: scores of simple models, by their names on the page. source: the address of all points as CSV.
    first_loss, first_score: what stands in a chart that has no point yet.
    """

    baselines: Mapping[str, float] = {}
    best_step: int | None = None
    source: str = ""
    first_loss: str = ""
    first_score: str = ""


def loss_and_score_charts(
    task_type: str,
    losses: Sequence[Loss],
    scores: Sequence[Scores],
    loss_sentence: str,
    score_sentence: str,
    marks: Marks,
) -> list[dict[str, Any]]:
    """Return the two charts of one run: its losses, and the metrics of its task type on held-out rows."""
    losses = thin_points(losses)
    scores = thin_points(scores)
    steps, evaluations = make_track(losses, marks.source), make_track(scores, marks.source)
    facts = TASK_TYPES[task_type]
    return [
        curve_chart(
            _("Loss"),
            loss_sentence,
            [steps, evaluations],
            [
                Curve(_("training loss"), 0, [point.loss for point in losses], noisy=True, column="loss"),
                Curve(
                    _("evaluation loss"),
                    1,
                    [point.metrics.get("loss") for point in scores],
                    dots=True,
                    hue=1,
                    column="eval_loss",
                ),
            ],
            y_label=_("Loss"),
            key="loss",
            best_step=marks.best_step,
            is_positive=True,
            when_empty=marks.first_loss,
            csv=marks.source,
            first_of_page=True,
        ),
        curve_chart(
            str(facts.y_label),
            score_sentence,
            [evaluations],
            [
                Curve(
                    metric_title(task_type, name),
                    0,
                    [p.metrics.get(name) for p in scores],
                    hue=hue,
                    column=f"eval_{name}",
                )
                for hue, name in enumerate(facts.curves)
                if hue == 0 or not scores or any(name in point.metrics for point in scores)
            ],
            y_label=str(facts.y_label),
            key="metrics",
            baselines=marks.baselines,
            best_step=marks.best_step,
            when_empty=marks.first_score,
            csv=marks.source,
        ),
    ]


def course_charts(losses: Sequence[Loss], marks: Marks) -> list[dict[str, Any]]:
    """Return the charts of learning rate, gradient norm, speed and memory over the course of a run."""
    last = losses[-1] if losses else None
    losses = thin_points(losses)
    track = make_track(losses, marks.source)

    def course_chart(title: str, sentence: str, names: Mapping[str, str], y_label: str = "") -> dict[str, Any]:
        curves = [
            Curve(label, 0, [getattr(point, name) for point in losses], noisy=name in NOISY, hue=hue, column=name)
            for hue, (name, label) in enumerate(names.items())
        ]
        return curve_chart(
            title, sentence, [track], curves, y_label=y_label or title, key=next(iter(names)),
            is_positive=True, when_empty=marks.first_loss, csv=marks.source,
        )  # fmt: skip

    none_yet = _("Appears after the first step.")
    rate_sentence = norm_sentence = speed_sentence = memory_sentence = none_yet
    if last and last.learning_rate is not None:
        rate_sentence = _("Learning rate %(rate).3g at step %(step)d.") % {
            "rate": last.learning_rate,
            "step": last.step,
        }
    norms = [point for point in losses if point.grad_norm is not None]
    if norms:
        highest = max(norms, key=lambda point: point.grad_norm or 0)
        norm_sentence = _("Gradient norm before clipping, highest at step %(step)d: %(norm).3g.")
        norm_sentence %= {"step": highest.step, "norm": highest.grad_norm}
    speeds = [point.tokens_per_second for point in losses if point.tokens_per_second is not None]
    if speeds:
        speed_sentence = _("%(speed)s tokens per second on average.") % {"speed": f"{sum(speeds) / len(speeds):,.0f}"}
    memory = {"memory_mb": _("memory")}
    if any(point.gpu_memory_mb is not None for point in losses):
        memory["gpu_memory_mb"] = _("GPU memory")
    sizes = [point.memory_mb for point in losses if point.memory_mb is not None]
    if sizes:
        memory_sentence = _("Memory was at most %(memory)s MiB.") % {"memory": f"{max(sizes):,.0f}"}
    return [
        course_chart(_("Learning rate"), rate_sentence, {"learning_rate": _("learning rate")}),
        course_chart(_("Gradient norm"), norm_sentence, {"grad_norm": _("gradient norm")}),
        course_chart(_("Tokens per second"), speed_sentence, {"tokens_per_second": _("tokens per second")}),
        course_chart(_("Memory (MiB)"), memory_sentence, memory),
    ]


def make_track(points: Sequence[Loss] | Sequence[Scores], source: str) -> Track:
    """Return where the points lie on each axis, and the source of all where these may be only some.

    What was thinned out has more than half of MOST_POINTS.
    """
    places: dict[str, list[float | None]] = {
        "step": [point.step for point in points],
        "epoch": [point.epoch for point in points],
        "seconds": [point.seconds for point in points],
        "tokens": [point.tokens for point in points],
    }
    return Track(places, source if len(points) > MOST_POINTS // 2 else "")


def metric_title(task_type: str, name: str) -> str:
    """Return what the legend of the score chart calls a metric."""
    usual = {"accuracy": _("accuracy"), "macro_f1": _("macro F1")}
    return usual[name] if task_type == USUAL and name in usual else str(METRIC_TITLES[name])


def drawn_baselines(metrics: Mapping[str, Any], task_type: str) -> dict[str, float]:
    """Return the baselines on the scale of the score chart, by their names on the page."""
    baseline = metrics.get("baseline", {})
    curves = TASK_TYPES[task_type].curves
    return {
        str(title): baseline[name]
        for name, title in BASELINE_TITLES.items()
        if baseline.get(name) is not None and name.endswith(curves)
    }


def find_best(task_type: str, scores: Sequence[Scores]) -> Scores:
    """Return the evaluation with the best value of the first curve of the task type; the earliest of several."""
    facts = TASK_TYPES[task_type]
    best = min if facts.is_error else max
    return best(scores, key=lambda point: point.metrics[facts.curves[0]])


def best_sentence(task_type: str, best: Scores) -> str:
    """Return the sentence about the best evaluation of a finished run."""
    if task_type == USUAL:
        sentence = _("Accuracy on held-out rows was best at step %(step)d: %(best).1f%%.")
        return sentence % {"step": best.step, "best": 100 * best.metrics["accuracy"]}
    name = TASK_TYPES[task_type].curves[0]
    sentence = _("%(metric)s on held-out rows was best at step %(step)d: %(best).4g.")
    return sentence % {"metric": METRIC_TITLES[name], "step": best.step, "best": best.metrics[name]}


def read_history(metrics: Mapping[str, Any]) -> tuple[list[Loss], list[Scores]]:
    """Return the points of the loss curve and the evaluations of metrics.json."""
    first_curve = f"eval_{TASK_TYPES[task_type_of(metrics)].curves[0]}"
    losses: list[Loss] = []
    scores: list[Scores] = []
    for entry in metrics.get("history", []):
        place = {"epoch": entry.get("epoch"), "seconds": entry.get("runtime_s"), "tokens": entry.get("tokens")}
        if entry.get("loss") is not None:
            rates = {"learning_rate": entry.get("learning_rate"), "grad_norm": entry.get("grad_norm")}
            losses.append(Loss(entry["step"], entry["loss"], **place, **rates))
        if entry.get(first_curve) is not None:
            values = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            scores.append(Scores(entry["step"], values, **place))
    return losses, scores


def run_charts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the charts of loss and scores of one finished run; empty if it has measured only one of them."""
    metrics = experiment.metrics
    task_type = task_type_of(metrics)
    losses, scores = read_history(metrics)
    if not losses or not scores:
        return []
    best = find_best(task_type, scores)
    marks = Marks(
        baselines=drawn_baselines(metrics, task_type),
        best_step=best_checkpoint_step(metrics) or best.step,
        source=points_address(experiment),
    )
    loss_sentence = _("Training loss went from %(first).3f to %(last).3f.")
    return loss_and_score_charts(
        task_type,
        losses,
        scores,
        loss_sentence % {"first": losses[0].loss, "last": losses[-1].loss},
        best_sentence(task_type, best),
        marks,
    )


def points_address(experiment: Experiment) -> str:
    """Return where all points of the run are, as CSV."""
    return reverse("training:curves", args=[experiment.task.pk])


def best_checkpoint_step(metrics: Mapping[str, Any]) -> int | None:
    """Return the step of the best checkpoint of a finished run; None for a run in progress."""
    step: int | None = metrics.get("checkpoints", {}).get("best", {}).get("step")
    return step


def comparison_charts(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return the charts of several runs' training losses and, if they have a task type in common, of their scores."""
    curves = [read_history(experiment.metrics) for experiment in experiments]
    charts = [compare_losses(experiments, [losses for losses, _scores in curves])]
    if len({experiment.task_type for experiment in experiments}) == 1:
        charts.append(compare_scores(experiments, [scores for _losses, scores in curves]))
    drawn = [chart for chart in charts if chart]
    for chart in drawn:
        chart["controls"] = chart is drawn[0]
    return drawn


def compare_losses(experiments: list[Experiment], losses: list[list[Loss]]) -> dict[str, Any] | None:
    """Return the chart of the runs' training losses; None if no run has measured any."""
    lowest = {
        experiment.name: min(point.loss for point in points if point.loss is not None)
        for experiment, points in zip(experiments, losses, strict=True)
        if points
    }
    if not lowest:
        return None
    winner = min(lowest, key=lambda name: lowest[name])
    sentence = _("%(name)s has the lowest training loss: %(loss).3f.") % {"name": winner, "loss": lowest[winner]}
    tracks, curves = overlay(experiments, losses, "loss", lambda point: point.loss)
    return curve_chart(_("Loss"), sentence, tracks, curves, y_label=_("Loss"), key="loss", is_positive=True)


def compare_scores(experiments: list[Experiment], scores: list[list[Scores]]) -> dict[str, Any] | None:
    """Return the chart of the runs' scores on held-out rows; None if no run was evaluated."""
    task_type = experiments[0].task_type
    name = TASK_TYPES[task_type].curves[0]
    best = {
        experiment.name: find_best(task_type, points)
        for experiment, points in zip(experiments, scores, strict=True)
        if points
    }
    if not best:
        return None
    if not share_evaluation_rows(experiments):
        sentence = _("The runs were evaluated on different rows, so their scores cannot be compared.")
    else:
        sentence = best_of_runs_sentence(task_type, best)
    tracks, curves = overlay(experiments, scores, f"eval_{name}", lambda point: point.metrics.get(name))
    title = str(METRIC_TITLES[name])
    return curve_chart(title, sentence, tracks, curves, y_label=title, key="metrics")


def best_of_runs_sentence(task_type: str, best: Mapping[str, Scores]) -> str:
    """Return the sentence about the best of several runs; `best` holds the best evaluation of each by its name."""
    name = TASK_TYPES[task_type].curves[0]
    choose = min if TASK_TYPES[task_type].is_error else max
    winner = choose(best, key=lambda each: best[each].metrics[name])
    sentence = _("%(metric)s on held-out rows was best in %(name)s: %(score).4g at step %(step)d.")
    return sentence % {
        "metric": METRIC_TITLES[name],
        "name": winner,
        "score": best[winner].metrics[name],
        "step": best[winner].step,
    }


def overlay(
    experiments: list[Experiment],
    points_of_runs: list[list[Measured]],
    column: str,
    value: Callable[[Measured], float | None],
) -> tuple[list[Track], list[Curve]]:
    """Return a track and a curve for each run that has points; its hue is its place among the runs."""
    tracks: list[Track] = []
    curves: list[Curve] = []
    for hue, (experiment, points) in enumerate(zip(experiments, points_of_runs, strict=True)):
        if points:
            thinned = thin_points(points)
            values = [value(point) for point in thinned]
            curves.append(Curve(experiment.name, len(tracks), values, noisy=column in NOISY, hue=hue, column=column))
            tracks.append(make_track(thinned, points_address(experiment)))
    return tracks, curves
