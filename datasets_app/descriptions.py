"""Descriptions of findings, changes and languages, in the language of the reader. The keys are the codes of the API."""

from collections.abc import Iterable
from typing import Any

from django.conf.locale import LANG_INFO
from django.utils.translation import get_language_info, ngettext, ngettext_lazy, pgettext
from django.utils.translation import gettext_lazy as _

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

# A finding's message has 500 characters at most, so the labels that it names share 300.
_MOST_NAMED = 10
_LONGEST_NAME = 40
_LONGEST_NAMES = 300
FINDING_TITLES = {
    "empty_text": _("No text or no label"),
    "too_short": _("Very short texts"),
    "too_long": _("Very long texts"),
    "exact_duplicate": _("Exact duplicates"),
    "near_duplicate": _("Near duplicates"),
    "label_conflict": _("Same text, different labels"),
    "split_leakage": _("Same text in two splits"),
    "label_imbalance": _("Imbalanced labels"),
    "rare_label": _("Rare labels"),
    "similar_labels": _("Labels that look alike"),
    "no_label": _("Marks for no label"),
    "scores_as_labels": _("Scores as labels"),
    "mixed_language": _("Several languages"),
    "markup": _("HTML in the text"),
    "control_characters": _("Control characters"),
    "encoding": _("Garbled characters"),
    "personal_data": _("Personal data"),
    "over_token_limit": _("Longer than the token limit"),
    "label_noise": _("Probably wrong labels"),
    "no_labels": _("Rows without any label"),
    "never_alone": _("Labels that never stand alone"),
    "span_beyond_text": _("Spans beyond the text"),
    "overlapping_spans": _("Overlapping spans"),
    "broken_tags": _("Broken sequences of tags"),
    "tags_do_not_fit": _("More or fewer tags than tokens"),
    "same_pair": _("Twice the same text"),
    "pair_leakage": _("Same pair in two splits"),
    "no_messages": _("No list of messages"),
    "unknown_role": _("Unknown roles"),
    "no_answer": _("No answer of the assistant"),
    "no_prompt": _("No prompt"),
    "broken_tool_call": _("Broken tool calls"),
    "role_order": _("Roles out of order"),
    "empty_turn": _("Empty messages"),
    "same_answers": _("Equal answers"),
    "refusal": _("Refusals"),
    "similar_prompt": _("Similar prompts"),
    "answer_conflict": _("Same prompt, different answers"),
    "prompt_leakage": _("Same prompt in two splits"),
    "long_conversation": _("Long conversations"),
    "long_text": _("Long texts"),
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
    "Unknown": _("unknown"),
}
FIX_LABELS = {  # labels of the fix buttons
    "too_short": _("Remove these rows"),
    "exact_duplicate": _("Keep the first of each"),
    "near_duplicate": _("Keep the first of each"),
    "label_conflict": _("Keep the most common label of each text"),
    "split_leakage": _("Remove them from the train split"),
    "prompt_leakage": _("Remove them from the train split"),
    "role_order": _("Remove these rows"),
    "empty_turn": _("Remove these rows"),
    "same_answers": _("Remove these rows"),
    "refusal": _("Remove these rows"),
    "long_conversation": _("Remove these rows"),
    "rare_label": _("Remove the rows with these labels"),
    "mixed_language": _("Remove these rows"),
    "similar_labels": _("Merge the labels that look alike"),
    "no_label": _("Remove the rows without a label"),
    "markup": _("Remove the HTML"),
    "control_characters": _("Remove these characters"),
    "encoding": _("Repair the characters"),
    "personal_data": _("Replace them with [e-mail], [phone], [id]"),
}

_SENTENCES = {  # what was found and how it affects training
    "empty_text": ngettext_lazy(
        "%(count)s row without text or label was left out.",
        "%(count)s rows without text or label were left out.",
        "n",
    ),
    "too_short": ngettext_lazy(
        "%(count)s text has fewer than 3 characters: too little to learn from, so its label acts as noise.",
        "%(count)s texts have fewer than 3 characters: too little to learn from, so their labels act as noise.",
        "n",
    ),
    "too_long": ngettext_lazy(
        "%(count)s text is longer than 2,000 characters and will probably be truncated in training.",
        "%(count)s texts are longer than 2,000 characters and will probably be truncated in training.",
        "n",
    ),
    "exact_duplicate": ngettext_lazy(
        "%(count)s row is an exact duplicate: it counts twice in training and can inflate evaluation scores.",
        "%(count)s rows are exact duplicates: they count twice in training and can inflate evaluation scores.",
        "n",
    ),
    "near_duplicate": ngettext_lazy(
        "%(count)s row is nearly the same as an earlier one: it can inflate evaluation scores.",
        "%(count)s rows are nearly the same as earlier ones: they can inflate evaluation scores.",
        "n",
    ),
    "label_conflict": ngettext_lazy(
        "%(count)s row has the same text as another with a different label: no model can be right on both.",
        "%(count)s rows have the same text as others with a different label: no model can be right on all of them.",
        "n",
    ),
    "split_leakage": ngettext_lazy(
        "%(count)s row has a text that is also in another split: test data leak into training, so scores are too high.",
        "%(count)s rows have texts that are also in another split: test data leak into training, so scores are too high.",
        "n",
    ),
    "label_imbalance": ngettext_lazy(
        "One label has %(count)s row, several times as many as another: a model may learn to always predict it. "
        "Judge by macro F1, not by accuracy.",
        "One label has %(count)s rows, several times as many as another: a model may learn to always predict it. "
        "Judge by macro F1, not by accuracy.",
        "n",
    ),
    "rare_label": ngettext_lazy(
        "%(count)s label has fewer than 10 rows: too few to train on and to evaluate. Add rows or merge labels.",
        "%(count)s labels have fewer than 10 rows: too few to train on and to evaluate. Add rows or merge labels.",
        "n",
    ),
    "similar_labels": ngettext_lazy(
        "%(count)s label looks like another: %(labels)s. A model learns them as different labels. Merge them.",
        "%(count)s labels look alike: %(labels)s. A model learns them as different labels. Merge them.",
        "n",
    ),
    "no_label": ngettext_lazy(
        "%(count)s row has a label that usually means “no label”: %(labels)s. A model would learn it as a label.",
        "%(count)s rows have labels that usually mean “no label”: %(labels)s. A model would learn them as labels.",
        "n",
    ),
    "scores_as_labels": ngettext_lazy(
        "%(count)s label is a number with decimals: a model treats scores as unrelated labels. Round them to a few labels.",
        "%(count)s labels are numbers, many with decimals: a model treats scores as unrelated labels. Round them to a few "
        "labels.",
        "n",
    ),
    "mixed_language": ngettext_lazy(
        "About %(count)s row is in another language than most: a base model for one language handles it poorly.",
        "About %(count)s rows are in another language than most: a base model for one language handles them poorly.",
        "n",
    ),
    "markup": ngettext_lazy(
        "%(count)s text contains HTML tags or entities: the model may treat them as cues for a label.",
        "%(count)s texts contain HTML tags or entities: the model may treat them as cues for a label.",
        "n",
    ),
    "control_characters": ngettext_lazy(
        "%(count)s text contains invisible control characters: they split words into pieces that the model doesn't know.",
        "%(count)s texts contain invisible control characters: they split words into pieces that the model doesn't know.",
        "n",
    ),
    "encoding": ngettext_lazy(
        "%(count)s text contains garbled characters. The file may have another encoding.",
        "%(count)s texts contain garbled characters. The file may have another encoding.",
        "n",
    ),
    "personal_data": ngettext_lazy(
        "%(count)s text contains an e-mail address, phone number or identity number: a model can memorise and reveal it.",
        "%(count)s texts contain e-mail addresses, phone numbers or identity numbers: a model can memorise and reveal them.",
        "n",
    ),
    "over_token_limit": ngettext_lazy(
        "%(count)s text has more than 128 tokens, the default limit. Longer texts are truncated to this length.",
        "%(count)s texts have more than 128 tokens, the default limit. Longer texts are truncated to this length.",
        "n",
    ),
    "label_noise": ngettext_lazy(
        "%(count)s row probably has a wrong label: a model trained on the other rows predicts another one.",
        "%(count)s rows probably have wrong labels: a model trained on the other rows predicts others.",
        "n",
    ),
    "no_labels": ngettext_lazy(
        "%(count)s row has no label at all. That is a valid answer; remove it if it only was not labelled.",
        "%(count)s rows have no label at all. That is a valid answer; remove them if they only were not labelled.",
        "n",
    ),
    "never_alone": ngettext_lazy(
        "%(count)s label stands only beside another one: a model can't learn to tell them apart.",
        "%(count)s labels stand only beside others: a model can't learn to tell them apart.",
        "n",
    ),
    "span_beyond_text": ngettext_lazy(
        "%(count)s row has a span that is empty or ends beyond its text. Perhaps offsets were counted in bytes.",
        "%(count)s rows have spans that are empty or end beyond their text. Perhaps offsets were counted in bytes.",
        "n",
    ),
    "broken_tags": ngettext_lazy(
        "%(count)s row has a tag that continues no span, such as I-PER after O, or a token without a tag. A span was begun at the "
        "former; the latter counts as O. Check these rows in the file.",
        "%(count)s rows have tags that continue no span, such as I-PER after O, or tokens without a tag. Spans were begun at the "
        "former; the latter count as O. Check these rows in the file.",
        "n",
    ),
    "tags_do_not_fit": ngettext_lazy(
        "%(count)s row with more or fewer tags than tokens was left out.",
        "%(count)s rows with more or fewer tags than tokens were left out.",
        "n",
    ),
    "overlapping_spans": ngettext_lazy(
        "%(count)s row has spans that overlap: a token can have one label only.",
        "%(count)s rows have spans that overlap: a token can have one label only.",
        "n",
    ),
    "same_pair": ngettext_lazy(
        "%(count)s row is a pair of a text with itself.", "%(count)s rows are pairs of a text with itself.", "n"
    ),
    "pair_leakage": ngettext_lazy(
        "%(count)s row has a pair that is also in another split, perhaps the other way round: scores are too high.",
        "%(count)s rows have pairs that are also in another split, perhaps the other way round: scores are too high.",
        "n",
    ),
    "no_messages": ngettext_lazy(
        "%(count)s row that is no list of messages with text was left out.",
        "%(count)s rows that are no lists of messages with text were left out.",
        "n",
    ),
    "unknown_role": ngettext_lazy(
        "%(count)s row with a message of an unknown role was left out. The roles are system, user, assistant and tool.",
        "%(count)s rows with messages of unknown roles were left out. The roles are system, user, assistant and tool.",
        "n",
    ),
    "no_answer": ngettext_lazy(
        "%(count)s row without an answer of the assistant was left out: there is nothing to learn from it.",
        "%(count)s rows without an answer of the assistant were left out: there is nothing to learn from them.",
        "n",
    ),
    "no_prompt": ngettext_lazy(
        "%(count)s row without a prompt was left out.", "%(count)s rows without a prompt were left out.", "n"
    ),
    "broken_tool_call": ngettext_lazy(
        "%(count)s row was left out because a tool call in it has no name or no arguments in valid JSON.",
        "%(count)s rows were left out because tool calls in them have no name or no arguments in valid JSON.",
        "n",
    ),
    "role_order": ngettext_lazy(
        "%(count)s conversation does not go from user to assistant in turns, with system first and tools after their call: "
        "many chat templates refuse it.",
        "%(count)s conversations do not go from user to assistant in turns, with system first and tools after their call: "
        "many chat templates refuse them.",
        "n",
    ),
    "empty_turn": ngettext_lazy(
        "%(count)s conversation has a message that says nothing: a model learns to answer without a question.",
        "%(count)s conversations have messages that say nothing: a model learns to answer without a question.",
        "n",
    ),
    "same_answers": ngettext_lazy(
        "%(count)s row has the same answer as chosen and as rejected: there is no preference to learn.",
        "%(count)s rows have the same answer as chosen and as rejected: there is no preference to learn.",
        "n",
    ),
    "refusal": ngettext_lazy(
        "%(count)s conversation has an answer that refuses, or says that an AI writes it: a model learns to do the same.",
        "%(count)s conversations have answers that refuse, or say that an AI writes them: a model learns to do the same.",
        "n",
    ),
    "similar_prompt": ngettext_lazy(
        "%(count)s row asks nearly the same as an earlier one.",
        "%(count)s rows ask nearly the same as earlier ones.",
        "n",
    ),
    "answer_conflict": ngettext_lazy(
        "%(count)s row has the same prompt as another with a different answer: a model learns a mixture of both.",
        "%(count)s rows have the same prompts as others with different answers: a model learns a mixture of them.",
        "n",
    ),
    "prompt_leakage": ngettext_lazy(
        "%(count)s row asks nearly the same as one in another split: evaluation may be too optimistic.",
        "%(count)s rows ask nearly the same as rows in another split: evaluation may be too optimistic.",
        "n",
    ),
    "long_conversation": ngettext_lazy(
        "%(count)s conversation has more than 1,024 tokens, the default limit of language models. Longer ones are left out of "
        "training.",
        "%(count)s conversations have more than 1,024 tokens, the default limit of language models. Longer ones are left out of "
        "training.",
        "n",
    ),
    "long_text": ngettext_lazy(
        "%(count)s text has more than 1,024 tokens, the default limit of language models. It is read in several windows; every "
        "token is learned.",
        "%(count)s texts have more than 1,024 tokens, the default limit of language models. They are read in several windows; every "
        "token is learned.",
        "n",
    ),
}

FIX_NOTES = {  # what is not said by the label of the button
    "label_conflict": _("Where two labels are equally common, all rows of the text are removed."),
}
_COUNTED_LABELS = ("rare_label", "similar_labels", "scores_as_labels", "never_alone")  # the count of others is of rows

_CHANGES = {
    "fix": ngettext_lazy("Fixed “%(title)s” in %(count)s row", "Fixed “%(title)s” in %(count)s rows", "n"),
    "edit": ngettext_lazy("Edited %(count)s row", "Edited %(count)s rows", "n"),
    "relabel": ngettext_lazy("Corrected the label of %(count)s row", "Corrected the labels of %(count)s rows", "n"),
    "rename": _("Renamed the label “%(label)s” to “%(to)s”"),
    "merge": ngettext_lazy("Added %(count)s row of %(other)s", "Added %(count)s rows of %(other)s", "n"),
}


def join_quoted(names: Iterable[str]) -> str:
    """Join names that stand between one pair of quotation marks, so that each has marks of its own."""
    return pgettext("ends one quoted name and begins the next", "”, “").join(names)


def describe_change(change: dict[str, Any]) -> str:
    """Describe how a version differs from its parent; return an empty string for one that was made from a file."""
    if not change:
        return ""
    count = change.get("count", 0)
    if change["did"] == "rename" and "labels" in change:
        change = {**change, "label": join_quoted(change["labels"])}
    values = {"n": count, "count": f"{count:,}", "other": "", **{k: v for k, v in change.items() if k != "count"}}
    codes = change.get("codes") or [change.get("code", "")]
    values["title"] = join_quoted(finding_title(code) for code in codes)
    if "removed" in change:  # earlier releases counted the rows together
        removed = change["removed"]
        changed = count - removed
        effects = []
        if changed:
            message = ngettext("%(count)s row changed", "%(count)s rows changed", changed)
            effects.append(message % {"count": f"{changed:,}"})
        if removed:
            message = ngettext("%(count)s row removed", "%(count)s rows removed", removed)
            effects.append(message % {"count": f"{removed:,}"})
        return str(_("Fixed “%(title)s”: %(effect)s") % {"title": values["title"], "effect": ", ".join(effects)})
    return str(_CHANGES[change["did"]] % values)


def describe_count(code: str, count: int) -> str:
    """Return the count of a finding with its unit."""
    values = {"count": f"{count:,}"}
    if code == "label_imbalance":
        return ngettext("largest label: %(count)s row", "largest label: %(count)s rows", count) % values
    if code in _COUNTED_LABELS:
        return ngettext("%(count)s label", "%(count)s labels", count) % values
    return ngettext("%(count)s row", "%(count)s rows", count) % values


def finding_title(code: str) -> str:
    """Return the title of a finding."""
    return str(FINDING_TITLES.get(code, code))


def language_name(name: str) -> str:
    """Return the name of a language that `checks.languages` detects; of most Django has the translation."""
    if name in _LANGUAGES:
        return str(_LANGUAGES[name])
    code = next((code for code, info in LANG_INFO.items() if info.get("name") == name), "")
    return str(get_language_info(code)["name_translated"]) if code else name


def describe_finding(code: str, count: int, examples: list[dict[str, Any]] | None = None) -> str:
    """Return one sentence: what a check found and how it affects training. `examples` name the labels, if it is about some."""
    groups = [
        quoted(example.get("labels") or [str(example.get("label"))]) for example in (examples or [])[:_MOST_NAMED]
    ]
    names = "; ".join(groups)
    if len(names) > _LONGEST_NAMES or len(examples or []) > _MOST_NAMED:
        names = f"{names[:_LONGEST_NAMES]} …"
    return str(_SENTENCES[code] % {"n": count, "count": f"{count:,}", "labels": names})


def quoted(labels: list[str]) -> str:
    """Return labels as a sentence names them, each in quotation marks and of a bearable length."""
    shown = [f"“{label[:_LONGEST_NAME]}{'…' if len(label) > _LONGEST_NAME else ''}”" for label in labels[:_MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(labels) > _MOST_NAMED else "")
