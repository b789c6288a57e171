"""Describe how a file was read, in the language of the reader. The keys are the codes that the readers note."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

_NOTES = {
    "no_header": _("The file has no header: columns are called by their number."),
    "skipped_lines": ngettext_lazy(
        "%(count)s line before the header was skipped.", "%(count)s lines before the header were skipped.", "n"
    ),
    "row_names": _("The first column has no name; it holds the names of the rows."),
    "header_too_short": _("The lines have one cell more than the header has names; the last column has no name."),
    "header_too_long": _("The header has one name more than the lines have cells: “%(column)s” is empty."),
    "literal_marks": ngettext_lazy(
        "%(count)s line has quotation marks that quote nothing; they are kept as part of the text.",
        "%(count)s lines have quotation marks that quote nothing; they are kept as part of the text.",
        "n",
    ),
    "first_delimiter": _("Only the first “%(delimiter)s” of each line separates; the others belong to the text."),
    "last_delimiter": _("Only the last “%(delimiter)s” of each line separates; the others belong to the text."),
    "cells_joined": ngettext_lazy(
        "%(count)s text holds the delimiter without quotation marks; its parts were joined again.",
        "%(count)s texts hold the delimiter without quotation marks; their parts were joined again.",
        "n",
    ),
    "overflow_joined": ngettext_lazy(
        "%(count)s text ran on into columns without a name; its parts were joined again.",
        "%(count)s texts ran on into columns without a name; their parts were joined again.",
        "n",
    ),
    "replaced_characters": ngettext_lazy(
        "%(count)s character is not valid %(encoding)s and became “�”.",
        "%(count)s characters are not valid %(encoding)s and became “�”.",
        "n",
    ),
    "export": _("This is an export of %(tool)s."),
    "class_names": _("The labels are the names that the file gives to the numbers in %(columns)s."),
    "other_sheets": _("Only the sheet “%(sheet)s” was read; the workbook also has %(sheets)s."),
    "split_files": _("Each file is a split: %(files)s."),
    "other_files": ngettext_lazy(
        "%(count)s file of the archive was not read: %(files)s.",
        "%(count)s files of the archive were not read, such as %(files)s.",
        "n",
    ),
    "formula_marks": ngettext_lazy(
        "This file was downloaded here; the apostrophe before %(count)s cell, which protects spreadsheets, was taken away again.",
        "This file was downloaded here; the apostrophes before %(count)s cells, which protect spreadsheets, were taken away again.",
        "n",
    ),
    "documents": ngettext_lazy(
        "The file is plain text, read as %(count)s document. A line <|endoftext|> or a page break begins the next; without them, "
        "documents end with a paragraph.",
        "The file is plain text, read as %(count)s documents. A line <|endoftext|> or a page break begins the next; without them, "
        "documents end with a paragraph.",
        "n",
    ),
    "document_files": ngettext_lazy(
        "The archive holds plain text, read as %(count)s document: each file is one, and where there are few files, long ones are "
        "divided.",
        "The archive holds plain text, read as %(count)s documents: each file is one, and where there are few files, long ones are "
        "divided.",
        "n",
    ),
    "class_files": _("The label of each text is the name of its file: %(labels)s. Each line is a text."),
    "class_folders": _("The label of each text is the name of its folder: %(labels)s. Each file is a text."),
    "unused_text": _("The column “%(column)s” holds texts, too, and is not used. Several text columns can be joined."),
    "label_names": _("Labels are the names in “%(names)s”, one for each number in “%(column)s”."),
    "unused_split": _("The column “%(column)s” is called like a split, but its values are no splits; it is not used."),
    "several_labels": _("Rows have several labels each: this is multi-label data."),
    "several_in_cell": _("Cells of “%(column)s” hold several labels each: this is multi-label data."),
    "flag_columns": _("The label of a row is the name of the one column that says yes: %(columns)s."),
    "labels_merged": ngettext_lazy(
        "%(count)s label that only looked like another was merged into it: %(labels)s.",
        "%(count)s labels that only looked like others were merged into them: %(labels)s.",
        "n",
    ),
    "unanswered_messages": ngettext_lazy(
        "%(count)s conversation goes on after the last answer of the assistant; what follows was left out.",
        "%(count)s conversations go on after the last answer of the assistant; what follows was left out.",
        "n",
    ),
    "whole_numbers": _("Labels such as 1.0 are stored as 1."),
}
_REASONS = {
    "no_text": _("without text"),
    "no_label": _("without label"),
    "several_labels": _("with several labels"),
    "not_a_number": _("whose label is no number"),
    "other_split": _("of another split"),
    "cancelled": _("skipped by the annotator"),
    "rejected": _("rejected by the annotator"),
    "annotators_disagree": _("on which annotators disagree"),
    "tags_do_not_fit": _("with more or fewer tags than tokens"),
    "no_messages": _("that are no list of messages with text"),
    "unknown_role": _("with a message of an unknown role"),
    "no_answer": _("without an answer of the assistant"),
    "no_prompt": _("without a prompt"),
    "broken_tool_call": _("with a tool call that has no name or no arguments in valid JSON"),
}
DELIMITER_WORDS = {",": _("comma"), "\t": _("tab"), ";": _("semicolon"), "|": _("vertical bar"), " ": _("space")}


def describe_note(note: dict[str, Any]) -> str:
    """Return one sentence on how a file was read."""
    count = note.get("count", 0)
    values: dict[str, Any] = {}
    for name, value in note.items():
        if isinstance(value, dict):
            values[name] = ", ".join(f"{item} ({meaning})" for item, meaning in value.items())
        elif isinstance(value, list):
            values[name] = ", ".join(f"“{item}”" for item in value)
        else:
            values[name] = str(value)
    values |= {"n": count, "count": f"{count:,}"}
    if "delimiter" in note:
        values["delimiter"] = str(DELIMITER_WORDS.get(note["delimiter"], note["delimiter"]))
    sentence = _NOTES.get(note["code"])
    return str(sentence % values) if sentence else note["code"]


def describe_reason(reason: str) -> str:
    """Return why rows were left out, as an attribute of “12 rows”."""
    return str(_REASONS.get(reason, reason))
