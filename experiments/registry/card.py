"""A model version's card: the facts that a run has left, the text that people write, and both as README.md."""

from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import override

from datasets_app.models import Version

from ..models import Experiment, ModelVersion
from ..results import plain_peft_code, verdict

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

LICENCES = ("base_model", "dataset")
# Of the presets' base models, as their makers state it; anything else is for people to fill in.
KNOWN = {
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "distilbert-base-uncased": "apache-2.0",
    "roberta-base": "mit",
    "albert-base-v2": "apache-2.0",
}
CODES = {
    "English": "en", "Chinese": "zh", "Japanese": "ja", "Korean": "ko", "German": "de", "French": "fr", "Spanish": "es",
}  # fmt: skip
TAGS = {
    "a", "blockquote", "br", "code", "em", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def known_licences(experiment: Experiment) -> dict[str, str]:
    return {"base_model": KNOWN.get(experiment.base_model, ""), "dataset": ""}


def limits(data: Version | None) -> list[dict[str, Any]]:
    """What the validation report has found in the data."""
    found = data.findings.all() if data else []
    return [{"code": f.code, "severity": f.severity, "count": f.count, "message": f.message} for f in found]


def metrics_at(experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """What was measured at another checkpoint than the best one: scores alone."""
    step = experiment.metrics["checkpoints"][checkpoint]["step"]
    rows = [row for row in experiment.metrics.get("history", []) if row["step"] == step and "eval_accuracy" in row]
    scores = {
        name.removeprefix("eval_"): value for name, value in (rows or [{}])[-1].items() if name.startswith("eval_")
    }
    return {"eval": {"accuracy": None, "macro_f1": None, "loss": None} | scores}


def first_text(version: ModelVersion) -> str:
    """What the card says until somebody writes it anew."""
    labels, language = ", ".join(version.labels), version.language or _("its data's language")
    does = _("It tells these labels apart in texts of %(language)s: %(labels)s.") % {
        "language": language,
        "labels": labels,
    }
    learnt = _("It has learnt from %(dataset)s, and reads nothing behind its first %(tokens)s tokens.") % {
        "dataset": version.dataset_name, "tokens": version.config.get("data", {}).get("max_length", 128),
    }  # fmt: skip
    use = _("Write here what it is for, what it must not be used for, and whom it may fail.")
    return f"## {_('What it does')}\n\n{does} {learnt}\n\n## {_('What it is for')}\n\n{use}\n"


def rendered(text: str) -> SafeString:
    """Markdown as HTML that does nothing but show: no script, no style, no image, no address but http, https and mailto."""
    import nh3

    html = _markdown().render(text)
    clean = nh3.clean(html, tags=TAGS, attributes={"a": {"href"}}, url_schemes={"http", "https", "mailto"})
    return mark_safe(clean)  # noqa: S308  nh3 has just made it safe


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("js-default", {"html": False, "linkify": False})


def readme(version: ModelVersion) -> str:
    """The card as the model hub's README.md: metadata in front, the text, and the facts, those in English."""
    metadata = yaml.safe_dump(_metadata(version), sort_keys=False, allow_unicode=True)
    with override("en"):
        parts = [f"# {version}", version.model.summary, version.card.strip(), *_facts(version)]
    return f"---\n{metadata}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _metadata(version: ModelVersion) -> dict[str, Any]:
    known = {
        "base_model": version.base_model,
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lora", "lorasite"],
        "language": CODES.get(version.language),
        "license": version.licence.get("base_model"),
        "model-index": [{"name": str(version), "results": [_result(version)]}],
    }
    return {name: value for name, value in known.items() if value}


def _result(version: ModelVersion) -> dict[str, Any]:
    found = version.metrics.get("eval", {})
    types = {"accuracy": "accuracy", "macro_f1": "f1", "macro_precision": "precision", "macro_recall": "recall"}
    return {
        "task": {"type": "text-classification"},
        "dataset": {
            "name": version.dataset_name, "type": "lorasite", "split": "eval",
            "revision": version.dataset_hash or "unknown",
        },
        "metrics": [{"type": types[n], "name": n, "value": round(found[n], 4)} for n in types if found.get(n) is not None],
    }  # fmt: skip


def _facts(version: ModelVersion) -> list[str]:
    lines = {
        "Data": f"{version.dataset_name} (sha256 {version.dataset_hash or 'unknown'})",
        "Base model": version.base_model,
        "Licence of the base model": version.licence.get("base_model") or "unknown",
        "Licence of the data": version.licence.get("dataset") or "unknown",
        "Trained": f"{version.trained_at:%Y-%m-%d %H:%M} UTC" if version.trained_at else "unknown",
        "Machine": ", ".join(f"{name} {value}" for name, value in version.machine.items()) or "unknown",
        "Checkpoint": version.checkpoint,
    }
    facts = "\n".join(f"- **{name}:** {value}" for name, value in lines.items())
    found = "\n".join(f"- {limit['message']}" for limit in version.limits) or "- The checks of the data found nothing."
    return [
        f"## Results\n\n{verdict(version.metrics)}\n\n{_per_label(version)}".rstrip(),
        f"## Limits found in the data\n\n{found}",
        f"## Facts\n\n{facts}",
        f"## Use it in plain PEFT\n\n```python\n{plain_peft_code('.', version.labels, version.config)}```",
        f"## Configuration\n\n```yaml\n{yaml.safe_dump(version.config, sort_keys=False, allow_unicode=True)}```",
    ]


def _per_label(version: ModelVersion) -> str:
    rows = version.metrics.get("eval", {}).get("per_label", {})
    lines = [
        f"| {_cell(name)} | {r['precision']:.3f} | {r['recall']:.3f} | {r['f1']:.3f} | {r['support']} |"
        for name, r in rows.items()
    ]
    head = "| label | precision | recall | F1 | rows |\n|---|---|---|---|---|"
    return "\n".join([head, *lines]) if lines else ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
