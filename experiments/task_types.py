"""What pages, API and registry show of each task type. A new task type needs an entry here and a template of its result."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from engine.task_types import LOWER_IS_BETTER, METRICS, is_language_model

USUAL = "sequence_classification"  # also that of runs of releases that knew no other

# The metrics that are compared and shown, by their name in `eval` of metrics.json.
METRIC_TITLES: dict[str, Promise] = {
    "accuracy": _("Accuracy"),
    "micro_f1": _("Micro F1"),
    "macro_f1": _("Macro F1"),
    "subset_accuracy": _("Subset accuracy"),
    "macro_average_precision": _("Macro average precision"),
    "r2": _("R²"),
    "mae": _("Mean absolute error (MAE)"),
    "rmse": _("Root mean squared error (RMSE)"),
    "pearson": _("Pearson correlation"),
    "spearman": _("Spearman correlation"),
    "entity_f1": _("Entity F1"),
    "entity_precision": _("Entity precision"),
    "entity_recall": _("Entity recall"),
    "exact_match": _("Exact match"),
    "rouge_l": _("ROUGE-L"),
    "json_valid": _("Valid JSON"),
    "field_accuracy": _("Right fields"),
    "token_accuracy": _("Token accuracy"),
    "preference_accuracy": _("Preference accuracy"),
    "reward_margin": _("Reward margin"),
    "chosen_likelier": _("Chosen answer is likelier"),
    "perplexity": _("Perplexity"),
    "loss": _("Evaluation loss"),
}
BASELINE_TITLES: dict[str, Promise] = {
    "majority_accuracy": _("Majority-class baseline"),
    "majority_micro_f1": _("Most frequent labels: micro F1"),
    "mean_mae": _("Always the mean: MAE"),
    "constant_entity_f1": _("One label everywhere: entity F1"),
    "linear_accuracy": _("Linear baseline on words"),
    "linear_micro_f1": _("Linear baseline on words: micro F1"),
    "linear_mae": _("Linear baseline on words: MAE"),
    "linear_pearson": _("Linear baseline on words: Pearson correlation"),
    "dictionary_entity_f1": _("Dictionary of seen entities: entity F1"),
    "base_exact_match": _("Base model: exact match"),
    "base_rouge_l": _("Base model: ROUGE-L"),
    "base_json_valid": _("Base model: valid JSON"),
    "base_field_accuracy": _("Base model: right fields"),
    "base_token_accuracy": _("Base model: token accuracy"),
    "base_preference_accuracy": _("Base model: preference accuracy"),
    "base_chosen_likelier": _("Base model: chosen answer is likelier"),
    "base_perplexity": _("Base model: perplexity"),
}


class TaskType(NamedTuple):
    title: Promise
    score: str  # the metric that lists show and sort by: 1 is perfect, and more is better
    metrics: tuple[str, ...]  # the key figures of a result
    curves: tuple[str, ...]  # the metrics that are drawn while a run is in progress; they share a scale
    y_label: Promise  # of these curves
    hub_task: str  # pipeline tag of a model hub

    @property
    def is_error(self) -> bool:
        """Return whether lower values of the first curve are better."""
        return self.curves[0] in LOWER_IS_BETTER


TASK_TYPES: dict[str, TaskType] = {
    "sequence_classification": TaskType(
        title=_("Single-label classification"),
        score="accuracy",
        metrics=("accuracy", "macro_f1", "loss"),
        curves=("accuracy", "macro_f1"),
        y_label=_("Accuracy"),
        hub_task="text-classification",
    ),
    "multi_label_classification": TaskType(
        title=_("Multi-label classification"),
        score="micro_f1",
        metrics=("micro_f1", "macro_f1", "subset_accuracy", "macro_average_precision", "loss"),
        curves=("micro_f1", "macro_f1", "subset_accuracy"),
        y_label=_("Score"),
        hub_task="text-classification",
    ),
    "regression": TaskType(
        title=_("Regression"),
        score="r2",
        metrics=("mae", "rmse", "r2", "pearson", "spearman", "loss"),
        curves=("rmse", "mae"),
        y_label=_("Error"),
        hub_task="text-classification",
    ),
    "token_classification": TaskType(
        title=_("Token classification"),
        score="entity_f1",
        metrics=("entity_f1", "entity_precision", "entity_recall", "loss"),
        curves=("entity_f1", "entity_precision", "entity_recall"),
        y_label=_("Score"),
        hub_task="token-classification",
    ),
    "causal_lm": TaskType(
        title=_("Language model"),
        score="token_accuracy",
        metrics=("exact_match", "field_accuracy", "json_valid", "rouge_l", "token_accuracy", "perplexity", "loss"),
        curves=("token_accuracy", "exact_match", "json_valid", "rouge_l"),
        y_label=_("Score"),
        hub_task="text-generation",
    ),
    "preference": TaskType(
        title=_("Preferences"),
        score="preference_accuracy",
        metrics=("preference_accuracy", "reward_margin", "chosen_likelier", "loss"),
        curves=("preference_accuracy", "chosen_likelier"),
        y_label=_("Score"),
        hub_task="text-generation",
    ),
}

WRITING = frozenset[str](task for task in METRICS if is_language_model(task))  # task types whose models answer in words


def task_type_of(metrics: Mapping[str, Any]) -> str:
    """Return the task type of the run with these metrics; those of earlier releases do not name it."""
    name = metrics.get("task", USUAL)
    return name if name in TASK_TYPES else USUAL


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """Return the score that lists show of the run with these metrics."""
    score: float | None = metrics.get("eval", {}).get(TASK_TYPES[task_type_of(metrics)].score)
    return score


def key_figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the key figures of a result {title, value, low, high}; low and high are None without an interval."""
    evaluation = metrics.get("eval", {})
    intervals = evaluation.get("intervals", {})
    figures = []
    for name in TASK_TYPES[task_type_of(metrics)].metrics:
        low, high = intervals.get(name) or (None, None)
        figures.append({"title": METRIC_TITLES[name], "value": evaluation.get(name), "low": low, "high": high})
    return figures


def baseline_figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scores of the simple models that the run was compared with, as `key_figures` does."""
    baseline = metrics.get("baseline", {})
    return [{"title": title, "value": baseline[name]} for name, title in BASELINE_TITLES.items() if name in baseline]


class Comparison(NamedTuple):
    """A result beside that of a model that has learned nothing: one that does not read the texts, or the base model."""

    name: str  # of the baseline, in BASELINE_TITLES
    baseline: float
    difference: float  # above 0 if the result is better


# The metric of each task type that is compared, and the baseline that has learned nothing.
COMPARED = {
    "sequence_classification": ("accuracy", "majority_accuracy"),
    "multi_label_classification": ("micro_f1", "majority_micro_f1"),
    "regression": ("mae", "mean_mae"),
    "token_classification": ("entity_f1", "constant_entity_f1"),
    "causal_lm": ("token_accuracy", "base_token_accuracy"),
    "preference": ("preference_accuracy", "base_preference_accuracy"),
}


def baseline_difference(metrics: Mapping[str, Any]) -> Comparison | None:
    """Return how far a result is above its baseline; None if one of them was not measured."""
    metric, name = COMPARED[task_type_of(metrics)]
    value = metrics.get("eval", {}).get(metric)
    baseline = metrics.get("baseline", {}).get(name)
    if value is None or baseline is None:
        return None
    difference = baseline - value if metric in LOWER_IS_BETTER else value - baseline
    return Comparison(name, baseline, difference)


def in_points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return gettext("%(n)s points") % {"n": f"{100 * difference:+.1f}".replace("-", "−")}
