"""Did the run learn? Decide it from its scores, and if it did not, find the probable cause in its curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, sqrt
from statistics import fmean, median
from typing import Any, Literal

from engine.config import RunConfig
from engine.intervals import Z, wilson_interval
from engine.models.text_encoding import MANY_UNKNOWN

Cause = Literal[
    "learning_rate_too_high", "learning_rate_too_low", "unknown_tokens", "precision", "too_few_steps", "data"
]

FEW_ROWS = 30  # evaluation rows; on fewer, the interval is too wide to tell anything
FALL = 0.1  # share by which the loss of a run that learns has fallen at least
CLEAR_FALL = 0.5  # by which it falls where the training rows are learned
RISE = 1.1  # ratio of the last loss to the first where the training diverges
PEAK = 1.5  # ratio of the highest loss to the first
HIGH_RATE = 1e-2  # AdamW with LoRA learns below it
LOW_RATE = 1e-4
VERY_LOW_RATE = 2e-5
FEW_STEPS = 100
VANISHED = 1e-7  # gradient norm

ADVICE: dict[Cause, str] = {
    "learning_rate_too_high": "The learning rate is probably too high. Lower training.learning_rate.",
    "learning_rate_too_low": "The learning rate is probably too low. Raise training.learning_rate.",
    "unknown_tokens": "The base model does not know many words of the texts. Choose a base model for their language.",
    "precision": "The precision is probably too coarse for this base model. Set training.precision to fp32.",
    "too_few_steps": "The run was probably too short. Raise training.num_train_epochs.",
    "data": "The texts may say too little about their labels, or many labels may be wrong. Check the data.",
}


def judge(metrics: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return the part `result` of metrics.json: learned, cause (empty if it learned) and evidence.

    metrics: all other parts of metrics.json.
    """
    evidence = collect_evidence(metrics, config)
    learned = has_learned(evidence) if config.task == "sequence_classification" else beats_baseline(evidence)
    return {"learned": learned, "cause": "" if learned else find_cause(evidence), "evidence": evidence}


def explain(result: Mapping[str, Any]) -> str:
    """Return the message for a run that did not learn."""
    evidence = result["evidence"]
    cause: Cause = result["cause"]
    if "accuracy" not in evidence:
        score = evidence["score"]
        return (
            f"The model did not learn: its {evidence['metric'].replace('_', ' ')} is "
            f"{'undefined' if score is None else format(score, '.3f')} on {evidence['eval_rows']} evaluation rows, and "
            f"that of {BASELINES[evidence['metric']]} is {evidence['baseline']:.3f}. {ADVICE[cause]}"
        )
    constant = evidence["constant_prediction"]
    return (
        f"The model did not learn: it is right in {evidence['accuracy']:.1%} of {evidence['eval_rows']} evaluation rows, "
        f"and always predicting one label in {evidence['majority_accuracy']:.1%}. "
        + (f"It predicts {constant[:60]} for every row. " if constant is not None else "")
        + ADVICE[cause]
    )


def collect_evidence(metrics: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return the facts that the verdict rests on, ready for JSON; a loss is None if the run has too few points of it."""
    if config.task == "sequence_classification":
        scores = compare_with_majority(metrics)
    else:
        scores = SCORES_TO_JUDGE[config.task](metrics) | {"eval_rows": metrics["data"]["eval_rows"]}
    points = [point for point in metrics["history"] if "loss" in point]
    losses = [point["loss"] for point in points]
    edge = max(1, len(losses) // 10)  # points whose mean is the loss at either end
    training = config.training
    return scores | {
        "loss_at_start": fmean(losses[:edge]) if len(losses) > 1 else None,
        "loss_at_end": fmean(losses[-edge:]) if len(losses) > 1 else None,
        "highest_loss": max(losses) if len(losses) > 1 else None,
        "loss_of_guessing": log(len(metrics["labels"])) if config.task == "sequence_classification" else None,
        "median_grad_norm": median(point["grad_norm"] for point in points) if points else None,
        "learning_rate": training.learning_rate,
        "highest_learning_rate": training.learning_rate * (config.lora.loraplus_lr_ratio or 1.0),
        "steps": metrics["train"]["steps"],
        "precision": config.model.quantization or metrics["system"]["precision"],
        "unknown_token_share": metrics["data"].get("unknown_token_share", 0.0),
    }


def compare_with_majority(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy and recall of a classifier beside those of one that ignores the texts."""
    scores = metrics["eval"]
    confusion = scores["confusion_matrix"]
    rows_by_label = [sum(row) for row in confusion]
    rows = sum(rows_by_label)
    predicted = [
        label for label, column in zip(metrics["labels"], zip(*confusion, strict=True), strict=True) if any(column)
    ]
    low, high = wilson_interval(scores["accuracy"] * rows, rows)
    return {
        "eval_rows": rows,
        "accuracy": scores["accuracy"],
        "interval": [low, high],
        # Of the eval rows too, because their most frequent label may be another than that of the training rows.
        "majority_accuracy": max(metrics["baseline"]["majority_accuracy"], max(rows_by_label) / max(1, rows)),
        "recall_above_chance": _recall_above_chance(confusion),
        "constant_prediction": predicted[0] if len(predicted) == 1 else None,
    }


def compare_average_precision(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the macro average precision of a multi-label model beside the labels' mean share, which guessing reaches.

    Not F1: on rare labels a model that learned little has none, whatever its threshold. The margin is about two standard
    errors of a share of as many rows as have a label.
    """
    labels = [label for label in metrics["eval"]["per_label"].values() if label["average_precision"] is not None]
    rows = metrics["data"]["eval_rows"]
    chance = fmean(label["support"] / rows for label in labels) if labels else 1.0
    with_label = sum(label["support"] for label in labels)
    margin = Z * sqrt(chance * (1 - chance) / max(1, with_label))
    score = metrics["eval"]["macro_average_precision"]
    return {"metric": "macro_average_precision", "score": score, "baseline": chance, "margin": margin}


def compare_r2(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return R² beside 0, which predicting the mean of the evaluation rows reaches; its interval gives the margin."""
    score = metrics["eval"]["r2"]
    interval = metrics["eval"]["intervals"]["r2"]
    margin = 0.0 if score is None or interval is None else score - interval[0]
    return {"metric": "r2", "score": score, "baseline": 0.0, "margin": margin}


def compare_entity_f1(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the F1 of entities beside that of marking every token; the margin is that of a share of so many entities."""
    score = metrics["eval"]["entity_f1"]
    constant = metrics["baseline"].get("constant_entity_f1", 0.0)
    entities = sum(label["support"] for label in metrics["eval"]["per_label"].values())
    if not entities:  # then nothing can be found, and only the loss tells
        return {"metric": "entity_f1", "score": None, "baseline": constant, "margin": 0.0}
    low, _high = wilson_interval(score * entities, entities)
    return {"metric": "entity_f1", "score": score, "baseline": constant, "margin": score - low}


def compare_token_accuracy(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of answer tokens that a language model foresees beside that of its base model.

    Both are counted on the same tokens, so the margin is that of one share alone, at most a tenth of what is left to gain.
    """
    score = metrics["eval"]["token_accuracy"]
    base = metrics["baseline"]["base_token_accuracy"]
    rows = metrics["data"]["eval_rows"]
    low, _high = wilson_interval(score * rows, rows)
    margin = min(score - low, (1 - base) / 10)
    return {"metric": "token_accuracy", "score": score, "baseline": base, "margin": margin}


def compare_preference_accuracy(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of pairs whose chosen answer gained more than the rejected one, beside the half that chance gives."""
    score = metrics["eval"]["preference_accuracy"]
    rows = metrics["data"]["eval_rows"]
    low, _high = wilson_interval(score * rows, rows)
    baseline = metrics["baseline"]["base_preference_accuracy"]
    return {"metric": "preference_accuracy", "score": score, "baseline": baseline, "margin": score - low}


SCORES_TO_JUDGE: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "multi_label_classification": compare_average_precision,
    "regression": compare_r2,
    "token_classification": compare_entity_f1,
    "causal_lm": compare_token_accuracy,
    "preference": compare_preference_accuracy,
}
BASELINES = {
    "macro_average_precision": "labels that are given at random",
    "r2": "predicting the mean",
    "entity_f1": "marking every token",
    "token_accuracy": "the base model",
    "preference_accuracy": "the base model, which prefers neither answer to itself,",
}


def beats_baseline(evidence: Mapping[str, Any]) -> bool:
    """Return whether the score is better than that of a model that ignores the texts, by more than chance explains."""
    score = evidence["score"]
    if score is None:  # the evaluation rows have one score, or no label
        return _fall_of_loss(evidence) >= FALL
    return bool(score - evidence["margin"] > evidence["baseline"])


def has_learned(evidence: Mapping[str, Any]) -> bool:
    """Return whether the model is better than the majority class, by more than chance explains."""
    majority = evidence["majority_accuracy"]
    if evidence["interval"][0] > majority or evidence["recall_above_chance"] > 0:
        return True
    # Where the rows cannot tell, because they are few or all of one label, or all are right, the loss decides.
    accuracy = evidence["accuracy"]
    is_undecided = evidence["eval_rows"] < FEW_ROWS and accuracy > majority
    return (is_undecided or accuracy == 1.0) and _fall_of_loss(evidence) >= FALL


def find_cause(evidence: Mapping[str, Any]) -> Cause:
    """Return the probable cause of a run that did not learn; the strongest evidence comes first."""
    rate = evidence["learning_rate"]
    fall = _fall_of_loss(evidence)
    start = evidence["loss_at_start"]
    if start is not None and (evidence["loss_at_end"] > RISE * start or evidence["highest_loss"] > PEAK * start):
        return "learning_rate_too_high"
    if evidence["unknown_token_share"] >= MANY_UNKNOWN:
        return "unknown_tokens"
    # A run that diverges in its first steps may start from a loss of 50: its loss has fallen then, and yet it learned nothing.
    guessing = evidence.get("loss_of_guessing")  # runs of earlier releases have none
    is_known = guessing and evidence["loss_at_end"] is not None
    below_guessing = 1 - evidence["loss_at_end"] / guessing if is_known else 1.0
    if evidence["highest_learning_rate"] >= HIGH_RATE and min(fall, below_guessing) < CLEAR_FALL:
        return "learning_rate_too_high"
    norm = evidence["median_grad_norm"]
    if evidence["precision"] != "fp32" and norm is not None and norm < VANISHED:
        return "precision"
    if rate < VERY_LOW_RATE and fall < FALL:
        return "learning_rate_too_low"
    if evidence["steps"] < FEW_STEPS and fall < CLEAR_FALL:
        return "too_few_steps"
    if rate < LOW_RATE and fall < FALL:
        return "learning_rate_too_low"
    return "data"


def _fall_of_loss(evidence: Mapping[str, Any]) -> float:
    """Return the share by which the training loss has fallen; 0 if that is not known."""
    start = evidence["loss_at_start"]
    return 1 - evidence["loss_at_end"] / start if start else 0.0


def _recall_above_chance(confusion: list[list[int]]) -> float:
    """Return by how much the lower end of macro recall's 95 % interval is above that of a model that ignores the texts.

    A model that finds rare labels has learned, even if its accuracy is no better than that of the majority class.
    """
    hits_and_rows = [(row[index], sum(row)) for index, row in enumerate(confusion) if any(row)]
    labels = max(1, len(hits_and_rows))
    recall = sum(hits / rows for hits, rows in hits_and_rows) / labels
    variance = 0.0
    for hits, rows in hits_and_rows:
        share = (hits + 1) / (rows + 2)  # never 0 or 1, where few rows would seem to be certain
        variance += share * (1 - share) / rows / labels**2
    return recall - Z * sqrt(variance) - 1 / labels
