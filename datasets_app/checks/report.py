"""The validation report of a version as its page shows it: verdict, label bars, charts, findings."""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from datasets_app import descriptions
from datasets_app.checks import text_statistics
from datasets_app.models import Finding, Version
from engine.models.plain_templates import USUAL, PlainTemplate
from web.charts import chart

_MOST_BARS = 12
_EXTRA_TEXTS: dict[str, Callable[[Any], str]] = {  # what an example's further fields say; the others have a column
    "same_as_row": lambda value: _("same as row %(row)s") % {"row": value},
    "like_row": lambda value: _("like row %(row)s") % {"row": value},
    "split": lambda value: _("in %(split)s") % {"split": value},
    "language": lambda value: descriptions.language_name(value) if value else _("unknown"),
    "rows": lambda value: ngettext("%(count)s row", "%(count)s rows", value) % {"count": f"{value:,}"},
    "labels": lambda value: _("merges %(labels)s") % {"labels": descriptions.quoted(value)},
    "always_with": lambda value: _("always with %(labels)s") % {"labels": value},
    "predicted": lambda value: _("predicted: %(label)s") % {"label": value},
}


def summary(version: Version) -> dict[str, Any]:
    """Return what both the list and the report show of a version."""
    severities = [finding.severity for finding in version.findings.all()]
    return {
        "dataset": version.dataset,
        "version": version,
        "bars": label_bars(version),
        "more_labels": max(0, len(version.labels) - _MOST_BARS),
        "badges": [
            {"severity": severity, "text": count_text(severity, severities.count(severity))}
            for severity in Finding.Severity
            if severity in severities
        ],
        "verdict": verdict(version, severities),
        "verdict_status": next((s for s in ("error", "warning") if s in severities), "success"),
    }


def count_text(severity: Finding.Severity, count: int) -> str:
    """Return how many findings there are of a severity."""
    texts = {
        Finding.Severity.ERROR: ngettext("%(n)d error", "%(n)d errors", count),
        Finding.Severity.WARNING: ngettext("%(n)d warning", "%(n)d warnings", count),
        Finding.Severity.INFO: ngettext("%(n)d remark", "%(n)d remarks", count),
    }
    return texts[severity] % {"n": count}


def label_bars(version: Version) -> list[dict[str, Any]]:
    """Return the commonest labels with their share in percent, and where each begins in one bar of all rows."""
    bars: list[dict[str, Any]] = []
    start = 0.0
    # Sorted here: PostgreSQL does not keep the order of the keys of an object.
    for label, rows in sorted(version.labels.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]:
        percent = 100 * rows / max(1, version.rows)
        bars.append({"label": label, "rows": rows, "percent": round(percent, 1), "start": start})
        start += percent
    return bars


def verdict(version: Version, severities: list[str]) -> str:
    """Return one sentence: whether the version is ready to be trained on."""
    if "error" in severities:
        return _("Not ready to train: fix the errors first.")
    if "warning" in severities:
        warnings = severities.count("warning")
        sentence = ngettext(
            "Ready to train. Fixing %(count)s warning may improve the result.",
            "Ready to train. Fixing %(count)s warnings may improve the result.",
            warnings,
        )
        return sentence % {"count": warnings}
    return _("Ready to train: the checks found no problems.")


def length_chart(version: Version) -> dict[str, Any]:
    """Return the chart of rows by text length in characters."""
    mode = max(version.lengths, key=lambda b: b["rows"], default={"from": 0, "to": 1})
    longest = version.lengths[-1]["to"] - 1 if version.lengths else 0
    low, high = mode["from"], mode["to"] - 1
    sentence = _("The most common length is %(length)s characters; the longest text has %(longest)s.")
    return chart(
        _("Text length"),
        sentence % {"length": low if low == high else f"{low}–{high}", "longest": f"{longest:,}"},
        [f"{b['from']}–{b['to'] - 1}" for b in version.lengths],
        {_("rows"): [b["rows"] for b in version.lengths]},
        x_label=_("characters"),
        y_label=_("rows"),
        kind="bar",
    )


def token_chart(
    version: Version, model: str, limit: int, chat_template: PlainTemplate = USUAL
) -> dict[str, Any] | None:
    """Return the chart of rows by tokens with the base model, split at the limit; None if they are not counted yet."""
    lengths = text_statistics.token_lengths(version, model, chat_template)
    if lengths is None:
        return None
    over, share = text_statistics.share_over(lengths, limit)
    sentence = ngettext(
        "%(count)s row (%(percent)s%%) is longer than %(limit)s tokens. Longer texts are truncated to this length.",
        "%(count)s rows (%(percent)s%%) are longer than %(limit)s tokens. Longer texts are truncated to this length.",
        over,
    )
    if version.is_chat:
        sentence = ngettext(
            "%(count)s row (%(percent)s%%) is longer than %(limit)s tokens. Training with this limit leaves it out.",
            "%(count)s rows (%(percent)s%%) are longer than %(limit)s tokens. Training with this limit leaves them out.",
            over,
        )
    beyond_limit = _("left out") if version.is_chat else _("truncated")
    if version.kind == Version.Kind.TEXT:
        sentence = ngettext(
            "%(count)s row (%(percent)s%%) is longer than %(limit)s tokens. It is read in several windows.",
            "%(count)s rows (%(percent)s%%) are longer than %(limit)s tokens. They are read in several windows.",
            over,
        )
        beyond_limit = _("several windows")
    if not over:
        sentence = _("No row is longer than %(limit)s tokens.")
    bins = text_statistics.histogram(lengths, limit)
    within = [b["rows"] if b["to"] <= limit else 0 for b in bins]
    beyond = [b["rows"] if b["to"] > limit else 0 for b in bins]
    return chart(
        _("Tokens per text"),
        sentence % {"count": f"{over:,}", "percent": f"{100 * share:.2g}", "limit": f"{limit:,}"},
        [f"{b['from']}–{b['to']}" for b in bins],
        {_("complete"): within, beyond_limit: beyond},
        x_label=_("tokens"),
        y_label=_("rows"),
        kind="bar",
        stacked=True,
    )


def languages(version: Version) -> list[dict[str, Any]]:
    """Return the languages with their share in percent of the rows whose language was detected."""
    total = max(1, sum(version.languages.values()))
    shares = []
    for name, rows in [*version.languages.items()][:_MOST_BARS]:
        percent = round(100 * rows / total, 1)
        shares.append({"language": descriptions.language_name(name), "percent": percent})
    return shares


def findings(version: Version) -> list[dict[str, Any]]:
    """Return the findings in the reader's language, each with its examples."""
    described = []
    for finding in version.findings.all():
        examples = []
        for example in finding.examples:
            extra = [describe(example[name]) for name, describe in _EXTRA_TEXTS.items() if name in example]
            shown = {name: example.get(name, "") for name in ("row", "text", "label")}
            examples.append(shown | {"extra": ", ".join(extra)})
        described.append(
            {
                "code": finding.code,
                "severity": finding.severity,
                "word": finding.get_severity_display(),
                "count": descriptions.describe_count(finding.code, finding.count),
                "title": descriptions.finding_title(finding.code),
                "sentence": descriptions.describe_finding(finding.code, finding.count, finding.examples),
                "fix": descriptions.FIX_LABELS.get(finding.code, ""),
                "fix_note": descriptions.FIX_NOTES.get(finding.code, ""),
                "columns": {name for example in examples for name, value in example.items() if value},
                "examples": examples,
            }
        )
    return described
