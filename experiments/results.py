"""Present a result: in plain words, as a confusion matrix, and as code that loads the model."""

import json
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from engine.intervals import wilson_interval

from .models import Experiment

# Notices about what `skipped_sentences`, the sentence on truncated texts and `remedies.diagnose` tell.
SHOWN_OTHERWISE = ("truncated", "unknown_split", "not_learned")

CODE = """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

folder = {folder}
labels = {labels}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoPeftModelForSequenceClassification.from_pretrained(
    folder, num_labels=len(labels), ignore_mismatched_sizes=True, dtype="float32"
)
logits = model(**tokenizer("…", return_tensors="pt", truncation=True, max_length={max_length})).logits{calibrated}
print(labels[logits.argmax().item()])
"""


def plain_peft(experiment: Experiment, adapter: str = "artifacts/final_model") -> str:
    """Return a program that needs transformers and peft only.

    `adapter` may be a checkpoint's folder; it holds no tokenizer, so the final model's is used.
    """
    final_model = f"{experiment.name}/artifacts/final_model"
    folder = f"{experiment.name}/{adapter}"
    facts = read_facts(experiment.final_model)
    return plain_peft_code(folder, experiment.labels, experiment.config, facts, tokenizer=final_model)


def plain_peft_code(
    folder: str, labels: list[str], config: dict[str, Any], facts: dict[str, Any], tokenizer: str = ""
) -> str:
    """Return the program for an adapter's folder; it answers as the platform does.

    facts: those of `read_facts`. tokenizer: another folder if the adapter's has none.
    """
    tokenizer_arguments = "folder" if tokenizer in ("", folder) else json.dumps(tokenizer)
    if facts.get("truncation_side") == "left":
        tokenizer_arguments += ', truncation_side="left"'
    temperature = facts.get("answers", {}).get("temperature")
    program = CODE.format(
        calibrated="" if temperature is None else f" / {temperature}",
        folder=json.dumps(folder),
        tokenizer=tokenizer_arguments,
        labels=json.dumps(labels, ensure_ascii=False),
        # A model may have been trained with less than was configured, because its positions end there.
        max_length=facts.get("max_length") or config.get("data", {}).get("max_length", 128),
    )
    if facts.get("base_model_origin") == "folder":
        origin = _("The base model %(name)s does not come from the model hub. Copy its folder next to this program.")
        program = f"# {origin % {'name': facts.get('base_model')}}\n{program}"
    return program


def read_facts(final_model: Path) -> dict[str, Any]:
    """Return the content of a final model's lorasite.json; empty if it is gone or damaged."""
    try:
        facts = json.loads((final_model / "lorasite.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def verdict(metrics: dict[str, Any]) -> str:
    """Return the result in plain words, compared with the majority class and with a linear model.

    Empty for a run without an evaluation, or of a checkpoint of which only scores were kept.
    """
    evaluation = metrics.get("eval", {})
    accuracy = evaluation.get("accuracy")
    if accuracy is None or "confusion_matrix" not in evaluation:
        return ""
    rows = sum(map(sum, evaluation["confusion_matrix"]))
    low, high = wilson_interval(accuracy * rows, rows)
    margin = (high - low) / 2
    reached = _("Right in %(right).1f %% of %(rows)d held-out rows, give or take %(margin).1f points.")
    baseline = metrics.get("baseline", {})
    sentences = [
        reached % {"right": 100 * accuracy, "rows": rows, "margin": 100 * margin},
        compare_with_majority(accuracy, low, metrics),
        compare_with_linear(accuracy, baseline.get("linear_accuracy"), margin),
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


def notices(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return the notices of the run, {level, code, message}, without those whose content the page shows in other words."""
    return [notice for notice in metrics.get("notices", []) if notice["code"] not in SHOWN_OTHERWISE]


def compare_with_majority(accuracy: float, low: float, metrics: dict[str, Any]) -> str:
    """Compare with always predicting the most frequent label; `low` is the lower end of the accuracy's interval.

    Agrees with the engine, which says that a model learned if `low` is above this baseline or if it finds rare labels.
    """
    evidence = (metrics.get("result") or {}).get("evidence") or {}
    majority = evidence.get("majority_accuracy", metrics.get("baseline", {}).get("majority_accuracy"))
    if majority is None:
        return ""
    if low > majority:
        sentence = _("The majority-class baseline (always the most frequent label) reaches %(share).1f %%.")
    elif evidence.get("recall_above_chance", 0) > 0:
        sentence = _(
            "The majority-class baseline (always the most frequent label) reaches %(share).1f %%, but unlike this model it "
            "never finds the other labels."
        )
    elif accuracy > majority:
        sentence = _(
            "The majority-class baseline (always the most frequent label) reaches %(share).1f %%, which is about the same "
            "on so many rows."
        )
    else:
        sentence = _("No better than the majority-class baseline (always the most frequent label): %(share).1f %%.")
    return sentence % {"share": 100 * majority}


def compare_with_linear(accuracy: float, linear: float | None, margin: float) -> str:
    """Compare with a linear model; a difference within the margin of error counts as none."""
    if linear is None:
        return ""
    if accuracy - linear > margin:
        sentence = _("A linear model on words reaches %(share).1f %%, which is clearly less.")
    elif linear - accuracy > margin:
        sentence = _(
            "A linear model on words reaches %(share).1f %%, which is clearly more: train longer, or use that."
        )
    else:
        sentence = _("A linear model on words reaches %(share).1f %%, which is about the same on so many rows.")
    return sentence % {"share": 100 * linear}


def matrix_rows(labels: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """Return the rows of the confusion matrix. A cell's heat, 0 to 9, is its share of the row."""
    rows = []
    for label, row in zip(labels, counts, strict=False):
        total = max(1, sum(row))
        rows.append({"label": label, "cells": [{"count": n, "heat": 9 * n // total} for n in row]})
    return rows
