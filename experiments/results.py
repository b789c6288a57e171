"""What a result means: in plain words, as a matrix, and as code that loads the model."""

import json
from math import sqrt
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from .models import Experiment

CODE = """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

folder = {folder}
labels = {labels}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))
logits = model(**tokenizer("…", return_tensors="pt", truncation=True, max_length={max_length})).logits
print(labels[logits.argmax().item()])
"""


def plain_peft(experiment: Experiment, adapter: str = "artifacts/final_model") -> str:
    """A program that needs transformers and peft only. `adapter` may be a checkpoint, which has no tokenizer of its own."""
    final = f"{experiment.name}/artifacts/final_model"
    return plain_peft_code(f"{experiment.name}/{adapter}", experiment.labels, experiment.config, tokenizer=final)


def plain_peft_code(folder: str, labels: list[str], config: dict[str, Any], tokenizer: str = "") -> str:
    return CODE.format(
        folder=json.dumps(folder),
        tokenizer="folder" if tokenizer in ("", folder) else json.dumps(tokenizer),
        labels=json.dumps(labels, ensure_ascii=False),
        max_length=config.get("data", {}).get("max_length", 128),
    )


def verdict(metrics: dict[str, Any]) -> str:
    """The result in plain words, beside what is reached without any training and by a simple model."""
    accuracy, baseline = metrics.get("eval", {}).get("accuracy"), metrics.get("baseline", {})
    if accuracy is None or "confusion_matrix" not in metrics["eval"]:
        return ""
    margin = _margin(accuracy, sum(map(sum, metrics["eval"]["confusion_matrix"])))
    sentences = [
        _reached(metrics["eval"], margin),
        _beside_majority(accuracy, baseline.get("majority_accuracy")),
        _beside_linear(accuracy, baseline.get("linear_accuracy"), margin),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def skipped_sentences(data: dict[str, Any]) -> list[str]:
    """Say how many rows the run left out, a sentence per reason. `data` is that part of metrics.json."""
    reasons = data.get("skipped_by_reason")
    if reasons is None:  # runs of an engine that counted only rows without text or label, and both together
        reasons = {"no_text_or_label": data.get("skipped_rows", 0)}
    sentences = {
        "no_text_or_label": ngettext_lazy(
            "%(n)d row without text or label was left out.", "%(n)d rows without text or label were left out.", "n"
        ),
        "no_text": ngettext_lazy("%(n)d row without text was left out.", "%(n)d rows without text were left out.", "n"),
        "no_label": ngettext_lazy(
            "%(n)d row without a label was left out.", "%(n)d rows without a label were left out.", "n"
        ),
        "unknown_split": ngettext_lazy(
            "%(n)d row with an unknown split name was left out.",
            "%(n)d rows with an unknown split name were left out.",
            "n",
        ),
        "between_splits": ngettext_lazy(
            "%(n)d row was left out because it is nearly the same as training rows and as evaluation rows.",
            "%(n)d rows were left out because they are nearly the same as training rows and as evaluation rows.",
            "n",
        ),
    }
    return [str(sentences[reason] % {"n": count}) for reason, count in reasons.items() if count and reason in sentences]


def _margin(share: float, rows: int) -> float:
    """Half of the interval's width."""
    low, high = interval(share * rows, rows)
    return (high - low) / 2


def interval(right: float, rows: int) -> tuple[float, float]:
    """Where a share that was counted over so many rows lies in 95 of 100 cases (Wilson, JASA 22, 1927)."""
    n, z = max(1, rows), 1.96
    share = right / n
    middle, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + (z / n) ** 2 / 4)
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _reached(found: dict[str, Any], margin: float) -> str:
    said = _("Right in %(right).1f %% of %(rows)d held-out rows, give or take %(margin).1f points.")
    rows = sum(map(sum, found["confusion_matrix"]))
    return said % {"right": 100 * found["accuracy"], "rows": rows, "margin": 100 * margin}


def _beside_majority(accuracy: float, majority: float | None) -> str:
    if majority is None:
        return ""
    if accuracy <= majority:
        said = _("Not better than always saying the commonest label, which is right in %(share).1f %%.")
    else:
        said = _("Always saying the commonest label is right in %(share).1f %%.")
    return said % {"share": 100 * majority}


def _beside_linear(accuracy: float, linear: float | None, margin: float) -> str:
    if linear is None:
        return ""
    if accuracy - linear > margin:
        said = _("A linear model on words reaches %(share).1f %%, which is clearly less.")
    elif linear - accuracy > margin:
        said = _("A linear model on words reaches %(share).1f %%, which is clearly more: train longer, or use that.")
    else:
        said = _("A linear model on words reaches %(share).1f %%, which is about the same on so many rows.")
    return said % {"share": 100 * linear}


def matrix(labels: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix; heat is 0 to 9 by the share of the row."""
    return [
        {"label": label, "cells": [{"count": n, "heat": 9 * n // max(1, sum(row))} for n in row]}
        for label, row in zip(labels, counts, strict=False)
    ]
