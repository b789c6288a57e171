"""What each finding is called and what it does to a training, in words. The keys are the finding codes of the API."""

from collections.abc import Callable

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

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
}


def title(code: str) -> str:
    return str(TITLES.get(code, code))


def sentence(code: str, count: int) -> str:
    """One sentence in the reader's language: what was found and what it does to a training."""
    return _SENTENCES[code](count) % {"count": f"{count:,}"}
