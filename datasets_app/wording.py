"""What each finding is called and what it does to a training, in words. The keys are the finding codes of the API."""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from work.models import JobMessages

MESSAGES = JobMessages(
    error_kept=_("Nothing was stored; all versions that were there are unchanged."),
    known_error_next=_("Change what the message names, then start it again."),
    unexpected_error_next=_("Start it again; if it breaks again, tell your administrator the number."),
    worker_lost_kept=_("Nothing was stored; all versions that were there are unchanged."),
    worker_lost_next=_(
        "The rows may need more memory than there is. Try with fewer rows, or end other programs first."
    ),
    cancelled=_("Cancelled. Nothing was stored."),
    worker_stopping=_("The worker stops; the work begins again on the next one."),
    worker_gone=_("The worker of this task is gone; the task goes back to the queue."),
)

TITLES = {
    "empty_text": _("No text or no label"),
    "too_short": _("Very short texts"),
    "too_long": _("Very long texts"),
    "exact_duplicate": _("Exact duplicates"),
    "near_duplicate": _("Near duplicates"),
    "label_conflict": _("Same text, different labels"),
    "split_leakage": _("Same text in two splits"),
    "label_imbalance": _("Unequal labels"),
    "rare_label": _("Rare labels"),
    "mixed_language": _("Several languages"),
    "markup": _("HTML in the text"),
    "control_characters": _("Control characters"),
    "encoding": _("Broken characters"),
    "personal_data": _("Personal data"),
    "over_token_limit": _("Longer than the model reads"),
    "label_noise": _("Labels that are probably wrong"),
}
_LANGUAGES = {
    "English": _("English"),
    "Chinese": _("Chinese"),
    "Chinese (Traditional)": _("Chinese (Traditional)"),
    "Chinese (Simplified)": _("Chinese (Simplified)"),
    "Japanese": _("Japanese"),
    "Korean": _("Korean"),
    "Spanish": _("Spanish"),
    "French": _("French"),
    "German": _("German"),
}
FIXES = {  # what the button of a finding's one-click fix says
    "too_short": _("Leave these rows out"),
    "exact_duplicate": _("Keep the first of each"),
    "near_duplicate": _("Keep the first of each"),
    "label_conflict": _("Keep the commonest label of each text"),
    "split_leakage": _("Leave them out of train"),
    "rare_label": _("Leave these labels out"),
    "mixed_language": _("Leave these rows out"),
    "markup": _("Take out the HTML"),
    "control_characters": _("Take these characters out"),
    "encoding": _("Repair the characters"),
    "personal_data": _("Replace them with [e-mail], [phone], [id]"),
}

_SENTENCES: dict[str, Callable[[int], str]] = {
    "empty_text": lambda n: ngettext(
        "%(count)s row has no text or no label and was left out: a training cannot learn from it.",
        "%(count)s rows have no text or no label and were left out: a training cannot learn from them.",
        n,
    ),
    "too_short": lambda n: ngettext(
        "%(count)s text has fewer than 3 characters: too little to learn from, so its label acts as noise.",
        "%(count)s texts have fewer than 3 characters: too little to learn from, so their labels act as noise.",
        n,
    ),
    "too_long": lambda n: ngettext(
        "%(count)s text is longer than 2,000 characters: a training cuts it off and never sees the end.",
        "%(count)s texts are longer than 2,000 characters: a training cuts them off and never sees their ends.",
        n,
    ),
    "exact_duplicate": lambda n: ngettext(
        "%(count)s row repeats another one exactly: it counts twice in training, and makes an evaluation look better.",
        "%(count)s rows repeat others exactly: they count twice in training, and make an evaluation look better.",
        n,
    ),
    "near_duplicate": lambda n: ngettext(
        "%(count)s row has nearly the words of an earlier one: evaluated on, it makes results look better.",
        "%(count)s rows have nearly the words of earlier ones: evaluated on, they make results look better.",
        n,
    ),
    "label_conflict": lambda n: ngettext(
        "%(count)s row has the text of another with a different label: no model can be right on both.",
        "%(count)s rows have the text of others with a different label: no model can be right on all of them.",
        n,
    ),
    "split_leakage": lambda n: ngettext(
        "%(count)s row has a text that also stands in another split: the evaluation asks what training has shown.",
        "%(count)s rows have texts that also stand in another split: the evaluation asks what training has shown.",
        n,
    ),
    "label_imbalance": lambda n: ngettext(
        "One label has %(count)s row, several times as many as another: a model may learn to answer it always. "
        "Judge by macro F1, not by accuracy.",
        "One label has %(count)s rows, several times as many as another: a model may learn to answer it always. "
        "Judge by macro F1, not by accuracy.",
        n,
    ),
    "rare_label": lambda n: ngettext(
        "%(count)s label has fewer than 10 rows: too few to learn and to measure. Add rows or merge labels.",
        "%(count)s labels have fewer than 10 rows: too few to learn and to measure. Add rows or merge labels.",
        n,
    ),
    "mixed_language": lambda n: ngettext(
        "About %(count)s row is in another language than most: a base model for one language reads it badly.",
        "About %(count)s rows are in another language than most: a base model for one language reads them badly.",
        n,
    ),
    "markup": lambda n: ngettext(
        "%(count)s text has HTML tags or entities: a model spends its attention on them or takes them as clues.",
        "%(count)s texts have HTML tags or entities: a model spends its attention on them or takes them as clues.",
        n,
    ),
    "control_characters": lambda n: ngettext(
        "%(count)s text has invisible control characters: they split words, so that the model does not know them.",
        "%(count)s texts have invisible control characters: they split words, so that the model does not know them.",
        n,
    ),
    "encoding": lambda n: ngettext(
        "%(count)s text has broken characters: the model learns garbled words. The file may be in another encoding.",
        "%(count)s texts have broken characters: the model learns garbled words. The file may be in another encoding.",
        n,
    ),
    "personal_data": lambda n: ngettext(
        "%(count)s text has an e-mail address, phone or identity number: a model can remember it and give it away.",
        "%(count)s texts have e-mail addresses, phone or identity numbers: a model can remember and give them away.",
        n,
    ),
    "over_token_limit": lambda n: ngettext(
        "%(count)s text has more tokens than the usual limit of 128: a training cuts it off and never sees the end.",
        "%(count)s texts have more tokens than the usual limit of 128: a training cuts them off and never sees their ends.",
        n,
    ),
    "label_noise": lambda n: ngettext(
        "%(count)s row has a label that a model trained on the other rows disagrees with: it teaches the wrong thing.",
        "%(count)s rows have labels that a model trained on the other rows disagrees with: they teach the wrong thing.",
        n,
    ),
}

_CHANGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "fix": lambda change: (
        ngettext("Repaired “%(title)s” in %(count)s row", "Repaired “%(title)s” in %(count)s rows", change["count"])
        % {"title": title(change["code"]), "count": f"{change['count']:,}"}
    ),
    "edit": lambda change: (
        ngettext("Edited %(count)s row", "Edited %(count)s rows", change["count"]) % {"count": f"{change['count']:,}"}
    ),
    "relabel": lambda change: (
        ngettext("Corrected the label of %(count)s row", "Corrected the labels of %(count)s rows", change["count"])
        % {"count": f"{change['count']:,}"}
    ),
    "rename": lambda change: (
        _("Renamed the label “%(label)s” to “%(to)s”") % {"label": change["label"], "to": change["to"]}
    ),
    "merge": lambda change: (
        ngettext("Added %(count)s row of %(other)s", "Added %(count)s rows of %(other)s", change["count"])
        % {"count": f"{change['count']:,}", "other": change.get("other", "")}
    ),
}


def changed(change: dict[str, Any]) -> str:
    """What was done to a version's parent; empty where it came from a file."""
    return str(_CHANGES[change["did"]](change)) if change else ""


def title(code: str) -> str:
    return str(TITLES.get(code, code))


def language(name: str) -> str:
    return str(_LANGUAGES.get(name, name))


def sentence(code: str, count: int) -> str:
    """One sentence in the reader's language: what was found and what it does to a training."""
    return _SENTENCES[code](count) % {"count": f"{count:,}"}
