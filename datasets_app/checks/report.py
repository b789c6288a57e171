"""A version's validation report as pages show it: a verdict, bars, a chart, findings in words."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from datasets_app import wording
from datasets_app.checks import text_statistics
from datasets_app.models import Dataset, Finding, Version

_MOST_BARS = 12
_SHOWN = ("row", "text", "label")  # an example's fields that have a column of their own
_EXTRA_WORDS = {
    "same_as_row": lambda value: _("same as row %(row)s") % {"row": value},
    "like_row": lambda value: _("like row %(row)s") % {"row": value},
    "split": lambda value: _("in %(split)s") % {"split": value},
    "language": lambda value: wording.language(value) if value else _("unknown"),
    "rows": lambda value: _("%(rows)s rows") % {"rows": value},
    "predicted": lambda value: _("predicted: %(label)s") % {"label": value},
}


def summary(version: Version) -> dict[str, Any]:
    """What list and detail say of a version."""
    severities = [f.severity for f in version.findings.all()]
    return {
        "dataset": version.dataset,
        "version": version,
        "bars": label_bars(version),
        "more_labels": max(0, len(version.labels) - _MOST_BARS),
        "badges": [
            {"severity": s, "word": s.label, "count": severities.count(s)}
            for s in Finding.Severity
            if severities.count(s)
        ],
        "verdict": verdict(severities),
        "verdict_status": next((s for s in ("error", "warning") if s in severities), "success"),
    }


def verdict(severities: list[str]) -> str:
    if "error" in severities:
        return _("Not ready: repair the errors below before you train on it.")
    if "warning" in severities:
        return _("Good enough to train on; the warnings below say what would make it better.")
    return _("Ready to train on: the checks found nothing that harms a training.")


def label_bars(version: Version) -> list[dict[str, Any]]:
    return [
        {"label": label, "rows": rows, "percent": round(100 * rows / max(1, version.rows), 1)}
        for label, rows in [*version.labels.items()][:_MOST_BARS]
    ]


def length_chart(version: Version) -> dict[str, Any]:
    most = max(version.lengths, key=lambda b: b["rows"], default={"from": 0, "to": 1})
    sentence = _("Most texts have %(low)s to %(high)s characters; the longest has %(longest)s.")
    longest = version.lengths[-1]["to"] - 1 if version.lengths else 0
    return {
        "type": "bar",
        "title": _("Length of the texts"),
        "sentence": sentence % {"low": most["from"], "high": most["to"] - 1, "longest": longest},
        "x_label": _("characters"),
        "y_label": _("rows"),
        "labels": [f"{b['from']}–{b['to'] - 1}" for b in version.lengths],
        "series": [{"label": _("rows"), "data": [b["rows"] for b in version.lengths], "dash": False}],
    }


def token_chart(version: Version, model: str, limit: int) -> dict[str, Any] | None:
    """Rows by tokens with that base model, what is read beside what is cut off; None where they are not counted yet."""
    lengths = text_statistics.tokens(version, model)
    if lengths is None:
        return None
    over, share = text_statistics.share_over(lengths, limit)
    sentence = ngettext(
        "%(count)s row (%(percent)s %%) is longer than %(limit)s tokens; a training cuts off what stands behind.",
        "%(count)s rows (%(percent)s %%) are longer than %(limit)s tokens; a training cuts off what stands behind.",
        over,
    )
    bins = text_statistics.histogram(lengths, limit)
    read, cut = ([b["rows"] if (b["to"] > limit) == beyond else 0 for b in bins] for beyond in (False, True))
    return {
        "type": "bar",
        "stacked": True,
        "title": _("Tokens of the texts"),
        "sentence": sentence % {"count": f"{over:,}", "percent": f"{100 * share:.2g}", "limit": limit},
        "x_label": _("tokens"),
        "y_label": _("rows"),
        "labels": [f"{b['from']}–{b['to']}" for b in bins],
        "series": [
            {"label": _("read whole"), "data": read, "dash": False},
            {"label": _("cut off"), "data": cut, "dash": False},
        ],
    }


def languages(version: Version) -> list[dict[str, Any]]:
    """Languages with their share in percent of the rows whose language could be told."""
    total = max(1, sum(version.languages.values()))
    names = [*version.languages.items()][:_MOST_BARS]
    return [{"language": wording.language(name), "percent": round(100 * rows / total, 1)} for name, rows in names]


def findings(version: Version) -> list[dict[str, Any]]:
    """The findings in the reader's language, each with its examples."""
    return [
        {
            "code": f.code,
            "severity": f.severity,
            "word": f.get_severity_display(),
            "count": f.count,
            "title": wording.title(f.code),
            "sentence": wording.sentence(f.code, f.count),
            "fix": wording.FIXES.get(f.code, ""),
            "examples": [{**{key: e.get(key, "") for key in _SHOWN}, "extra": _extra(e)} for e in f.examples],
        }
        for f in version.findings.all()
    ]


def _extra(example: dict[str, Any]) -> str:
    return ", ".join(words(example[key]) for key, words in _EXTRA_WORDS.items() if key in example)


def next_number(name: str) -> int:
    """The number that the next version of this name gets."""
    dataset = Dataset.objects.filter(name=name).first()
    return dataset.latest.number + 1 if dataset and dataset.versions.exists() else 1
