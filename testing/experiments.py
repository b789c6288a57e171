"""Experiments as rows; nothing is trained."""

from typing import Any

from experiments.models import Experiment
from training.models import Status, Task

METRICS: dict[str, Any] = {
    "labels": ["bad", "good"],
    "eval": {
        "accuracy": 0.8, "macro_f1": 0.79, "loss": 0.4, "confusion_matrix": [[8, 2], [2, 8]],
        "per_label": {name: {"precision": 0.8, "recall": 0.8, "f1": 0.8, "support": 10} for name in ("bad", "good")},
    },
    "baseline": {"majority_accuracy": 0.5, "linear_accuracy": 0.7},
    "worst": [{"text": "<script>alert(1)</script>", "label": "bad", "predicted": "good"}],
    "history": [{"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.5}, {"step": 2, "eval_accuracy": 0.8, "eval_macro_f1": 0.79}],
}  # fmt: skip

LANGUAGE_MODEL: dict[str, Any] = {
    "task": "causal_lm",
    "labels": [],
    "data": {"eval_rows": 60, "train_rows": 900, "truncated_rows": 0, "skipped_by_reason": {"over_long": 2}},
    "eval": {"loss": 0.1, "perplexity": 1.1, "token_accuracy": 0.97, "exact_match": 0.9, "rouge_l": 0.95, "json_valid": 1.0},
    "baseline": {
        "base_loss": 2.0, "base_perplexity": 7.4, "base_token_accuracy": 0.5, "base_exact_match": 0.0,
        "base_rouge_l": 0.2, "base_json_valid": 0.1,
    },
    "answers": [{"prompt": "<b>odd</b>", "expected": "{}", "base": "Sure!", "tuned": "{}"}],
    "history": [
        {"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.5},
        {"step": 2, "eval_loss": 0.1, "eval_token_accuracy": 0.97, "eval_exact_match": 0.9, "eval_json_valid": 1.0, "answers": ["{}"]},
    ],
}  # fmt: skip


def did_not_learn(cause: str, **evidence: Any) -> dict[str, Any]:
    """Return METRICS of a run that always predicts the second label, with this probable cause."""
    evaluation: dict[str, Any] = METRICS["eval"]
    measured = {
        "majority_accuracy": 0.5,
        "loss_at_start": 0.7,
        "loss_at_end": 0.69,
        "constant_prediction": "good",
    } | evidence
    return METRICS | {
        "eval": evaluation | {"accuracy": 0.5, "confusion_matrix": [[0, 10], [0, 10]]},
        "baseline": {"majority_accuracy": 0.5},
        "train": {"steps": 12, "tokens_per_second": 1000.0, "runtime_s": 2.0},
        "system": {"precision": "int8"},
        "data": {"train_rows": 64},
        "result": {"learned": False, "cause": cause, "evidence": measured},
    }


def row(owner: Any, name: str, **values: Any) -> Experiment:
    experiment = Experiment.objects.create(
        name=name,
        owner=owner,
        **({"dataset_name": "d@1", "base_model": "b", "metrics": METRICS, "score": values.get("accuracy")} | values),
    )
    Task.objects.create(
        owner=owner, experiment=experiment, status=(values.get("accuracy") and Status.SUCCESS) or Status.FAILURE
    )
    return experiment
