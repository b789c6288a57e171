"""What a model can learn, with the metrics and the losses of each task type. The names are those of a configuration."""

from __future__ import annotations

from typing import Literal

TaskType = Literal[
    "sequence_classification",
    "multi_label_classification",
    "regression",
    "token_classification",
    "causal_lm",
    "preference",
]
# What a model's head computes outputs for: each text, or each of its tokens; causal: the next token, with the model's own head.
HeadKind = Literal["sequence", "token", "causal"]
Metric = Literal[
    "accuracy",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "loss",
    "micro_f1",
    "subset_accuracy",
    "macro_average_precision",
    "mae",
    "rmse",
    "r2",
    "pearson",
    "spearman",
    "entity_f1",
    "entity_precision",
    "entity_recall",
    "perplexity",
    "token_accuracy",
    "exact_match",
    "rouge_l",
    "json_valid",
    "field_accuracy",
    "preference_accuracy",
    "reward_margin",
    "chosen_likelier",
]
# By task type, the metrics that may decide which checkpoint is best; the first one is the default.
METRICS: dict[TaskType, tuple[Metric, ...]] = {
    "sequence_classification": ("accuracy", "macro_f1", "macro_precision", "macro_recall", "loss"),
    "multi_label_classification": ("micro_f1", "macro_f1", "subset_accuracy", "macro_average_precision", "loss"),
    "regression": ("rmse", "mae", "r2", "pearson", "spearman", "loss"),
    "token_classification": ("entity_f1", "entity_precision", "entity_recall", "loss"),
    "causal_lm": ("loss", "perplexity", "token_accuracy", "exact_match", "rouge_l", "json_valid", "field_accuracy"),
    "preference": ("loss", "preference_accuracy", "reward_margin", "chosen_likelier"),
}
LOWER_IS_BETTER = frozenset[Metric]({"loss", "mae", "rmse", "perplexity"})
# By task type, the losses that it can be trained with; the first one is the default.
LOSSES: dict[TaskType, tuple[str, ...]] = {
    "sequence_classification": ("cross_entropy", "focal"),
    "multi_label_classification": ("cross_entropy", "focal"),
    "regression": ("mean_squared", "huber"),
    "token_classification": ("cross_entropy", "focal"),
    "causal_lm": ("cross_entropy",),
    "preference": ("dpo",),
}
HEADS: dict[TaskType, HeadKind] = {"token_classification": "token", "causal_lm": "causal", "preference": "causal"}


def head_of(task: TaskType) -> HeadKind:
    """Return the kind of head that a model needs for a task type."""
    return HEADS.get(task, "sequence")


def is_language_model(task: TaskType) -> bool:
    """Return whether a task type trains a language model on what an assistant answers."""
    return head_of(task) == "causal"
