"""The result of a run in plain words: one verdict for each task type."""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _

from engine.intervals import wilson_interval
from web.sentences import join_translated

from .task_types import METRIC_TITLES, task_type_of

Metrics = dict[str, Any]  # the content of metrics.json
MUCH_FORGOTTEN = 0.25  # rise of the loss on ordinary sentences: their tokens are then 1.3 times as surprising


def verdict(metrics: Metrics) -> str:
    """Return the result in plain words, compared with simple models.

    Empty for a run without an evaluation, or of a checkpoint of which only scores were kept.
    """
    return join_translated(VERDICTS[task_type_of(metrics)](metrics))


def judge_classification(metrics: Metrics) -> list[str]:
    """Compare the accuracy with that of the majority class and of a linear model."""
    evaluation = metrics.get("eval", {})
    accuracy = evaluation.get("accuracy")
    if accuracy is None or "confusion_matrix" not in evaluation:
        return []
    rows = sum(map(sum, evaluation["confusion_matrix"]))
    low, high = wilson_interval(accuracy * rows, rows)
    margin = (high - low) / 2
    reached = _("Right in %(right).1f%% of %(rows)s held-out rows, give or take %(margin).1f points.")
    baseline = metrics.get("baseline", {})
    return [
        reached % {"right": 100 * accuracy, "rows": f"{rows:,}", "margin": 100 * margin},
        compare_with_majority(accuracy, low, metrics),
        compare_with_linear(accuracy, baseline.get("linear_accuracy"), margin),
    ]


def judge_multi_label(metrics: Metrics) -> list[str]:
    """Compare the micro F1 with that of the most frequent labels and of a linear model.

    Its interval is that of a share of as many decisions as there are true labels, as the engine judges entities.
    """
    evaluation = metrics.get("eval", {})
    if "per_label" not in evaluation:
        return []
    micro_f1 = evaluation["micro_f1"]
    labels = sum(label["support"] for label in evaluation["per_label"].values())
    low, high = wilson_interval(micro_f1 * labels, labels)
    reached = _("Micro F1 is %(score).3f (95%% interval: %(low).3f to %(high).3f).")
    sentences = [reached % {"score": micro_f1, "low": low, "high": high}]
    rows = metrics.get("data", {}).get("eval_rows") or metrics.get("calibration", {}).get("rows")
    if rows:
        right = evaluation["subset_accuracy"]
        low_share, high_share = wilson_interval(right * rows, rows)
        sentence = _(
            "All labels are right in %(right).1f%% of %(rows)s held-out rows, give or take %(margin).1f points."
        )
        margin = 100 * (high_share - low_share) / 2
        sentences.append(sentence % {"right": 100 * right, "rows": f"{rows:,}", "margin": margin})
    return [*sentences, *compare_f1(metrics, micro_f1, (low, high), "majority_micro_f1", "linear_micro_f1")]


def judge_entities(metrics: Metrics) -> list[str]:
    """Compare the F1 of entities with that of a dictionary of those that were seen in training."""
    evaluation = metrics.get("eval", {})
    if "per_label" not in evaluation:
        return []
    f1 = evaluation["entity_f1"]
    entities = sum(label["support"] for label in evaluation["per_label"].values())
    interval = wilson_interval(f1 * entities, entities)
    reached = _("Entity F1 is %(score).3f (95%% interval: %(low).3f to %(high).3f) on %(n)s held-out entities.")
    sentences = [reached % {"score": f1, "low": interval[0], "high": interval[1], "n": f"{entities:,}"}]
    return [*sentences, *compare_f1(metrics, f1, interval, "constant_entity_f1", "dictionary_entity_f1")]


def compare_f1(metrics: Metrics, score: float, interval: tuple[float, float], simple: str, linear: str) -> list[str]:
    """Compare an F1 with the baselines of these names; a difference within the interval counts as none."""
    sentences = {
        "majority_micro_f1": _("Always giving the most frequent labels reaches %(score).3f%(difference)s."),
        "linear_micro_f1": _("A linear model on words reaches %(score).3f%(difference)s."),
        "constant_entity_f1": _("Marking everything with one label reaches %(score).3f%(difference)s."),
        "dictionary_entity_f1": _("Marking the entities of the training rows reaches %(score).3f%(difference)s."),
    }
    baseline = metrics.get("baseline", {})
    return [
        sentences[name] % {"score": baseline[name], "difference": describe_difference(baseline[name], interval)}
        for name in (simple, linear)
        if baseline.get(name) is not None
    ]


def describe_difference(other: float, interval: tuple[float, float], *, lower_is_better: bool = False) -> str:
    """Return how the score of a simple model stands to the interval of this model's score, to be added to a sentence."""
    low, high = interval
    if low <= other <= high:
        return _(", which is about the same on so many rows")
    if (other < low) != lower_is_better:
        return _(", which is clearly worse")
    return _(", which is clearly better: train longer, or use that")


def judge_regression(metrics: Metrics) -> list[str]:
    """Compare the mean absolute error with that of the mean and of a linear model."""
    evaluation = metrics.get("eval", {})
    interval = evaluation.get("intervals", {}).get("mae")
    if evaluation.get("mae") is None or interval is None:
        return []
    reached = _("Off by %(mae).4g on average on the held-out rows (95%% interval: %(low).4g to %(high).4g).")
    sentences = [reached % {"mae": evaluation["mae"], "low": interval[0], "high": interval[1]}]
    if evaluation.get("r2") is not None:
        explained = _("The model explains %(share).0f%% of the variance of the scores (R² %(r2).3f).")
        sentences.append(explained % {"share": 100 * max(0.0, evaluation["r2"]), "r2": evaluation["r2"]})
    words = {
        "mean_mae": _("Always predicting the mean is off by %(mae).4g%(difference)s."),
        "linear_mae": _("A linear model on words is off by %(mae).4g%(difference)s."),
    }
    for name, sentence in words.items():
        mae = metrics.get("baseline", {}).get(name)
        if mae is not None:
            difference = describe_difference(mae, (interval[0], interval[1]), lower_is_better=True)
            sentences.append(sentence % {"mae": mae, "difference": difference})
    return sentences


def compare_with_majority(accuracy: float, low: float, metrics: dict[str, Any]) -> str:
    """Compare with always predicting the most frequent label; `low` is the lower end of the accuracy's interval.

    Agrees with the engine, which says that a model learned if `low` is above this baseline or if it finds rare labels.
    """
    evidence = (metrics.get("result") or {}).get("evidence") or {}
    majority = evidence.get("majority_accuracy", metrics.get("baseline", {}).get("majority_accuracy"))
    if majority is None:
        return ""
    if low > majority:
        sentence = _("The majority-class baseline (always the most frequent label) reaches %(share).1f%%.")
    elif evidence.get("recall_above_chance", 0) > 0:
        sentence = _(
            "The majority-class baseline (always the most frequent label) reaches %(share).1f%%, but unlike this model it "
            "never finds the other labels."
        )
    elif accuracy > majority:
        sentence = _(
            "The majority-class baseline (always the most frequent label) reaches %(share).1f%%, which is about the same "
            "on so many rows."
        )
    else:
        sentence = _("No better than the majority-class baseline (always the most frequent label): %(share).1f%%.")
    return sentence % {"share": 100 * majority}


def compare_with_linear(accuracy: float, linear: float | None, margin: float) -> str:
    """Compare with a linear model; a difference within the margin of error counts as none."""
    if linear is None:
        return ""
    if accuracy - linear > margin:
        sentence = _("A linear model on words reaches %(share).1f%%, which is clearly less.")
    elif linear - accuracy > margin:
        sentence = _("A linear model on words reaches %(share).1f%%, which is clearly more: train longer, or use that.")
    else:
        sentence = _("A linear model on words reaches %(share).1f%%, which is about the same on so many rows.")
    return sentence % {"share": 100 * linear}


def judge_language_model(metrics: Metrics) -> list[str]:
    """Compare the answers, and the tokens that the model foresees, with those of the base model."""
    evaluation, baseline = metrics.get("eval", {}), metrics.get("baseline", {})
    if evaluation.get("token_accuracy") is None:
        return []
    sentences = []
    if evaluation.get("exact_match") is not None:
        sentence = _("%(share).1f%% of the answers to held-out prompts are exactly those of the data%(base)s.")
        base = describe_base(baseline.get("base_exact_match"))
        sentences.append(sentence % {"share": 100 * evaluation["exact_match"], "base": base})
    if evaluation.get("json_valid") is not None:
        sentence = _("%(share).1f%% are valid JSON%(base)s.")
        base = describe_base(baseline.get("base_json_valid"))
        sentences.append(sentence % {"share": 100 * evaluation["json_valid"], "base": base})
    elif evaluation.get("rouge_l") is not None:
        sentence = _(
            "Answers share %(share).1f%% of their words with the expected ones, in the same order (ROUGE-L)%(base)s."
        )
        base = describe_base(baseline.get("base_rouge_l"))
        sentences.append(sentence % {"share": 100 * evaluation["rouge_l"], "base": base})
    sentence = _("The model predicts %(share).1f%% of the answers' tokens%(base)s.")
    if not sentences:  # plain texts have no answers
        sentence = _("The model predicts %(share).1f%% of the tokens that it is trained to write%(base)s.")
    base = describe_base(baseline.get("base_token_accuracy"))
    return [
        *sentences,
        sentence % {"share": 100 * evaluation["token_accuracy"], "base": base},
        *judge_forgetting(metrics),
    ]


def judge_forgetting(metrics: Metrics) -> list[str]:
    """Say whether the model foresees ordinary sentences worse than its base model; nothing if that was not measured."""
    forgetting = metrics.get("forgetting")
    if not forgetting:
        return []
    if forgetting["loss"] - forgetting["base_loss"] > MUCH_FORGOTTEN:
        sentence = _(
            "Its loss on ordinary sentences rose from %(base).2f to %(loss).2f: it has forgotten much of what the base model could "
            "write. Train for fewer steps, or with a lower learning rate, if it is to answer other questions too."
        )
    else:
        sentence = _("Its loss on ordinary sentences is %(loss).2f (base model: %(base).2f): little was forgotten.")
    return [sentence % {"loss": forgetting["loss"], "base": forgetting["base_loss"]}]


def judge_preferences(metrics: Metrics) -> list[str]:
    """Say how often the model leans towards the chosen answer, and how often that is the likelier one."""
    evaluation, baseline = metrics.get("eval", {}), metrics.get("baseline", {})
    if evaluation.get("preference_accuracy") is None:
        return []
    sentence = _(
        "In %(share).1f%% of the held-out pairs the model moved towards the chosen answer rather than the rejected one. By chance "
        "it would be half of them."
    )
    likelier = _("The chosen answer is now the likelier one in %(share).1f%%%(base)s.")
    base = describe_base(baseline.get("base_chosen_likelier"))
    return [
        sentence % {"share": 100 * evaluation["preference_accuracy"]},
        likelier % {"share": 100 * evaluation["chosen_likelier"], "base": base},
        *judge_forgetting(metrics),
    ]


def describe_base(share: float | None) -> str:
    """Return what the base model reaches, to be added to a sentence; empty if nobody measured it."""
    return "" if share is None else _(" (base model: %(share).1f%%)") % {"share": 100 * share}


VERDICTS: dict[str, Callable[[Metrics], list[str]]] = {
    "sequence_classification": judge_classification,
    "multi_label_classification": judge_multi_label,
    "regression": judge_regression,
    "token_classification": judge_entities,
    "causal_lm": judge_language_model,
    "preference": judge_preferences,
}


def describe_scores(metrics: Metrics) -> str:
    """Return the scores of a checkpoint in one line: Accuracy 0.8000, Macro F1 0.7900."""
    scores = metrics.get("eval", {})
    values = {METRIC_TITLES[name]: scores[name] for name in METRIC_TITLES if name in scores}
    return ", ".join(f"{title} {'–' if value is None else format(value, '.4f')}" for title, value in values.items())
