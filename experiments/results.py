"""Present a result: as a confusion matrix, as code that loads the model, and what was noticed in the run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from engine.export.programs import peft_program
from engine.serve.model_files import parse_info

from .models import Experiment
from .task_types import USUAL
from .verdicts import verdict as verdict

# Notices about what `skipped_sentences`, the sentence on truncated texts and `remedies.diagnose` tell.
SHOWN_OTHERWISE = ("truncated", "unknown_split", "not_learned", "skipped_conversations")

WORST_SHOWN = 10  # rows on the page
CONFUSIONS_SHOWN = 10  # pairs of labels on the page


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
    # A model may have been trained with less than was configured, because its positions end there.
    max_length = facts.get("max_length") or config.get("data", {}).get("max_length", 128)
    defaults = {"base_model": "", "task": config.get("task") or USUAL}
    info = parse_info({**defaults, **facts, "labels": labels, "max_length": max_length})
    program = peft_program(info, folder, tokenizer, facts.get("truncation_side", "right"))
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


def skipped_sentences(data: dict[str, Any]) -> list[str]:
    """Say how many rows the run left out, a sentence per reason. `data` is that part of metrics.json."""
    reasons = data.get("skipped_by_reason")
    if reasons is None:  # runs of an engine that counted only rows without text or label, and both together
        reasons = {"no_text_or_label": data.get("skipped_rows", 0)}
    sentences = {
        "no_text_or_label": ngettext_lazy(
            "%(n)s row without text or label was left out.", "%(n)s rows without text or label were left out.", "count"
        ),
        "no_text": ngettext_lazy(
            "%(n)s row without text was left out.", "%(n)s rows without text were left out.", "count"
        ),
        "no_label": ngettext_lazy(
            "%(n)s row without a label was left out.", "%(n)s rows without a label were left out.", "count"
        ),
        "unknown_split": ngettext_lazy(
            "%(n)s row with an unknown split name was left out.",
            "%(n)s rows with an unknown split name were left out.",
            "count",
        ),
        "between_splits": ngettext_lazy(
            "%(n)s row was left out because it is nearly the same as training rows and as evaluation rows.",
            "%(n)s rows were left out because they are nearly the same as training rows and as evaluation rows.",
            "count",
        ),
        "over_long": ngettext_lazy(
            "%(n)s conversation was longer than the limit and was left out.",
            "%(n)s conversations were longer than the limit and were left out.",
            "count",
        ),
        "template_refused": ngettext_lazy(
            "%(n)s conversation was left out because the base model's chat template refuses it.",
            "%(n)s conversations were left out because the base model's chat template refuses them.",
            "count",
        ),
        "special_token": ngettext_lazy(
            "%(n)s conversation was left out because a message has a special token of the base model.",
            "%(n)s conversations were left out because a message has a special token of the base model.",
            "count",
        ),
        **dict.fromkeys(
            ("no_messages", "unknown_role", "no_answer", "broken_tool_call"),
            ngettext_lazy(
                "%(n)s row without a usable conversation was left out.",
                "%(n)s rows without a usable conversation were left out.",
                "count",
            ),
        ),
    }
    return [
        str(sentences[reason] % {"count": count, "n": f"{count:,}"})
        for reason, count in reasons.items()
        if count and reason in sentences
    ]


def notices(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return the notices of the run, {level, code, message}, without those whose content the page shows in other words."""
    return [notice for notice in metrics.get("notices", []) if notice["code"] not in SHOWN_OTHERWISE]


def label_rows(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the scores of each label by its name, with the label's threshold where it has one."""
    thresholds = metrics.get("thresholds", {})
    per_label = metrics.get("eval", {}).get("per_label", {})
    return [(name, row | {"threshold": thresholds.get(name)}) for name, row in per_label.items()]


def worst_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first rows with the highest loss; texts with entities also in pieces, as `mark_entities` returns them.

    Where a row has one label, wrong answers come first: with a good model, even the highest losses are of right ones.
    """
    rows = metrics.get("worst", [])[:WORST_SHOWN]
    if metrics.get("task", USUAL) == USUAL:
        rows = [row | {"is_right": row["label"] == row["predicted"]} for row in rows]
        return sorted(rows, key=lambda row: row["is_right"])
    if metrics["task"] != "token_classification":
        return rows
    return [
        row
        | {
            "true_pieces": mark_entities(row["text"], row["entities"]),
            "predicted_pieces": mark_entities(row["text"], row["predicted"]),
        }
        for row in rows
    ]


def top_confusions(labels: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true label and a wrong prediction: {label, predicted, count, share of the label}."""
    pairs: list[dict[str, Any]] = [
        {"label": labels[i], "predicted": labels[j], "count": count, "share": 100 * count / sum(row)}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:CONFUSIONS_SHOWN]


def matrix_rows(labels: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """Return the rows of the confusion matrix. A cell's heat, 0 to 9, is its share of the row."""
    rows = []
    for label, row in zip(labels, counts, strict=False):
        total = max(1, sum(row))
        cells = [
            {"predicted": predicted, "count": n, "heat": 9 * n // total}
            for predicted, n in zip(labels, row, strict=False)
        ]
        rows.append({"label": label, "cells": cells})
    return rows


def mark_entities(text: str, entities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the whole text in pieces {text, label}, in order; label is empty outside of entities.

    entities: {start, end, label} in code points, in their order; they do not overlap.
    """
    pieces = []
    position = 0
    for entity in entities:
        pieces.append({"text": text[position : entity["start"]], "label": ""})
        pieces.append({"text": text[entity["start"] : entity["end"]], "label": entity["label"]})
        position = entity["end"]
    pieces.append({"text": text[position:], "label": ""})
    return [piece for piece in pieces if piece["text"]]
