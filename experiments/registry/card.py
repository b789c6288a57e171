"""The card of a model version: facts of its run, a text that people write, and both together as README.md."""

from typing import Any

import yaml
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import override

from engine.models.plain_templates import TITLES

from ..models import Experiment, ModelVersion
from ..result_charts import describe_errors, describe_temperature
from ..results import label_rows, plain_peft_code, read_facts
from ..task_types import TASK_TYPES, USUAL, task_type_of
from ..verdicts import verdict
from .exports import describe_comparison, ready_exports

LICENCES = ("base_model", "dataset")
LANGUAGE_CODES = {
    "English": "en",
    "Chinese": "zh",
    "Japanese": "ja",
    "Korean": "ko",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
}
# Metrics by their name here: the types that the hub knows.
HUB_METRICS = {
    "accuracy": "accuracy",
    "micro_f1": "f1",
    "macro_f1": "f1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "subset_accuracy": "accuracy",
    "macro_average_precision": "average_precision",
    "mae": "mae",
    "rmse": "rmse",
    "r2": "r_squared",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "entity_f1": "f1",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "exact_match": "exact_match",
    "rouge_l": "rouge",
    "perplexity": "perplexity",
}
TAGS = {
    "a", "blockquote", "br", "code", "em", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def metrics_at(experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """Return the metrics of another checkpoint than the best; only its scores are known, None for a missing one."""
    step = experiment.metrics["checkpoints"][checkpoint]["step"]
    task_type = task_type_of(experiment.metrics)
    scores: dict[str, Any] = dict.fromkeys(TASK_TYPES[task_type].metrics)
    history = experiment.metrics.get("history", [])
    evaluations = [
        entry for entry in history if entry["step"] == step and any(name.startswith("eval_") for name in entry)
    ]
    if evaluations:
        for name, value in evaluations[-1].items():
            if name.startswith("eval_"):
                scores[name.removeprefix("eval_")] = value
    return {"eval": scores} if task_type == USUAL else {"task": task_type, "eval": scores}


def first_text(version: ModelVersion) -> str:
    """Return the card's text until somebody writes another one."""
    purposes = {
        "sequence_classification": _("It classifies texts in %(language)s by these labels: %(labels)s."),
        "multi_label_classification": _("It gives texts in %(language)s any number of these labels: %(labels)s."),
        "regression": _("It gives texts in %(language)s a score."),
        "token_classification": _("It finds entities in texts in %(language)s, with these labels: %(labels)s."),
        "causal_lm": _("It writes the assistant's answers in conversations in %(language)s."),
        "preference": _(
            "It writes the assistant's answers in conversations in %(language)s, as people preferred them."
        ),
    }
    if version.task_type == "causal_lm" and "exact_match" not in version.metrics.get("eval", {}):  # nobody was answered
        purposes["causal_lm"] = _("It continues texts in %(language)s.")
    purpose = purposes[version.task_type] % {
        "language": version.language or _("the language of its data"),
        "labels": ", ".join(version.labels),
    }
    if version.config.get("data", {}).get("text_pair_column"):
        purpose += " " + _("An input is a pair of texts.")
    sentence = _("It was trained on %(dataset)s and reads at most the first %(tokens)s tokens of a text.")
    if version.is_language_model:
        sentence = _("It was trained on %(dataset)s, with conversations or windows of at most %(tokens)s tokens.")
    training = sentence % {
        "dataset": version.dataset_name,
        "tokens": f"{version.config.get('data', {}).get('max_length', 128):,}",
    }
    to_do = _("Write here what the model is for, what it must not be used for, and for whom it may work badly.")
    # xgettext does not find strings inside of f-strings.
    purpose_title = _("What it does")
    use_title = _("Intended use")
    return f"## {purpose_title}\n\n{purpose} {training}\n\n## {use_title}\n\n{to_do}\n"


def render_card(text: str) -> SafeString:
    """Return Markdown as inert HTML: no script, style or image, and no links but http, https and mailto."""
    # Deferred: only pages with a card need them.
    import nh3
    from markdown_it import MarkdownIt

    html = MarkdownIt("js-default", {"html": False, "linkify": False}).render(text)
    clean = nh3.clean(html, tags=TAGS, attributes={"a": {"href"}}, url_schemes={"http", "https", "mailto"})
    return mark_safe(clean)  # noqa: S308  nh3 has just made it safe


def readme(version: ModelVersion) -> str:
    """Return the card as the README.md of a model hub: metadata, the text, and the facts in English."""
    metadata = yaml.safe_dump(hub_metadata(version), sort_keys=False, allow_unicode=True)
    with override("en"):
        parts = [f"# {version}", version.model.summary, version.card.strip(), *fact_sections(version)]
    # A hub reads the YAML between the dashes.
    text = "\n\n".join(part for part in parts if part)
    return f"---\n{metadata}---\n\n{text}\n"


def hub_metadata(version: ModelVersion) -> dict[str, Any]:
    """Return the metadata of a Hugging Face model card (huggingface.co/docs/hub/model-cards)."""
    evaluation = version.metrics.get("eval", {})
    metrics = [
        {"type": kind, "name": name, "value": round(evaluation[name], 4)}
        for name, kind in HUB_METRICS.items()
        if evaluation.get(name) is not None
    ]
    dataset = {
        "name": version.dataset_name,
        "type": "lorasite",
        "split": "eval",
        "revision": version.dataset_hash or "unknown",
    }
    hub_task = TASK_TYPES[version.task_type].hub_task
    result = {"task": {"type": hub_task}, "dataset": dataset, "metrics": metrics}
    metadata = {
        "base_model": version.base_model,
        "library_name": "peft",
        "pipeline_tag": hub_task,
        "tags": ["lora", "lorasite"],
        "language": LANGUAGE_CODES.get(version.language),
        "license": version.licence.get("base_model"),
        "model-index": [{"name": str(version), "results": [result]}],
    }
    return {name: value for name, value in metadata.items() if value}


def fact_sections(version: ModelVersion) -> list[str]:
    """Return the sections of the README.md that nobody writes: results, limits, facts, code, configuration."""
    saved_facts = read_facts(version.folder)
    base_model = version.base_model
    if saved_facts.get("revision"):
        base_model += f", revision {saved_facts['revision']}"
    if saved_facts.get("base_model_origin") == "folder":
        base_model += ", from a folder of the installation that trained this model, not from the hub"
    facts = {
        "Data": f"{version.dataset_name} (sha256 {version.dataset_hash or 'unknown'})",
        "Base model": base_model,
        "Chat template": describe_chat_template(saved_facts),
        "Licence of the base model": version.licence.get("base_model") or "unknown",
        "Licence of the data": version.licence.get("dataset") or "unknown",
        "Trained": f"{version.trained_at:%Y-%m-%d %H:%M} UTC" if version.trained_at else "unknown",
        "Machine": ", ".join(f"{name} {value}" for name, value in version.machine.items()) or "unknown",
        "Checkpoint": version.checkpoint,
    }
    fact_list = "\n".join(f"- **{name}:** {value}" for name, value in facts.items() if value)
    limit_list = (
        "\n".join(f"- {limit['message']}" for limit in version.limits) or "- The data checks found no problems."
    )
    results = [verdict(version.metrics), " ".join(calibration_sentences(version)), label_table(version)]
    config = yaml.safe_dump(version.config, sort_keys=False, allow_unicode=True)
    program = plain_peft_code(".", version.labels, version.config, saved_facts)
    return [
        "\n\n".join(["## Results", *filter(None, results)]),
        f"## Limits found in the data\n\n{limit_list}",
        f"## Facts\n\n{fact_list}",
        *export_sections(version),
        f"## Use it in plain PEFT\n\n```python\n{program}```",
        f"## Configuration\n\n```yaml\n{config}```",
    ]


def describe_chat_template(facts: dict[str, Any]) -> str:
    """Return which chat template a language model was trained with; empty for other models and those of earlier releases."""
    origin = facts.get("chat_template")
    return _("that of the base model") if origin == "own" else TITLES.get(str(origin), "")


def export_sections(version: ModelVersion) -> list[str]:
    """Return the section on exported files, with the figures of each format; none without exports."""
    lines = [f"- **{export.format}:** {describe_comparison(export.result or {})}" for export in ready_exports(version)]
    return ["## Exports\n\n" + "\n".join(lines)] if lines else []


def label_table(version: ModelVersion) -> str:
    """Return the scores of each label as a Markdown table, with their thresholds where they have some; else empty."""
    rows = label_rows(version.metrics)
    if not rows:
        return ""
    has_thresholds = bool(version.metrics.get("thresholds"))
    head = ["label", "precision", "recall", "F1", *(["threshold"] if has_thresholds else []), "rows"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, row in rows:
        label = " ".join(name.replace("|", "\\|").split())  # a label may hold what ends a cell or a line
        cells = [label, *(f"{row[score]:.3f}" for score in ("precision", "recall", "f1"))]
        if has_thresholds:
            cells.append("–" if row["threshold"] is None else f"{row['threshold']:.3f}")
        lines.append(f"| {' | '.join([*cells, str(row['support'])])} |")
    return "\n".join(lines)


def calibration_sentences(version: ModelVersion) -> list[str]:
    """Return what is known about the version's probabilities and thresholds; empty if they were never calibrated."""
    calibration = version.metrics.get("calibration")
    if (
        version.checkpoint != "best"
        and {"temperature", "temperatures"} & read_facts(version.folder).get("answers", {}).keys()
    ):
        return [_("Temperature and thresholds were fitted for the best checkpoint of its run, not for this one.")]
    if not calibration or not calibration.get("rows"):
        return []
    sentences = [describe_errors(calibration), describe_temperature(calibration)]
    if calibration.get("confident_from") is not None:
        sentence = _("Answers with a probability of at least %(threshold).1f%% are called confident.")
        sentences.append(sentence % {"threshold": 100 * calibration["confident_from"]})
    if version.metrics.get("thresholds"):
        sentence = _("The threshold of each label was chosen on the same %(rows)s evaluation rows.")
        sentences.append(sentence % {"rows": f"{calibration['rows']:,}"})
    return sentences
