"""Forms of the upload pages."""

from typing import Any, cast

from django import forms
from django.utils.translation import gettext_lazy as _

from datasets_app.reading.encodings import ENCODINGS
from web.forms import ServiceErrorsMixin

DELIMITER_WORDS = {",": _("comma"), "\t": _("tab"), ";": _("semicolon"), "|": _("vertical bar")}


class UploadForm(forms.Form):
    """Step one: the file."""

    file = forms.FileField(
        label=_("Data file"),
        allow_empty_file=True,  # the reader gives a better error for it
        help_text=_("CSV, TSV, JSON, JSONL or Parquet, also as .gz or .zip: one row per text, with its label."),
        widget=forms.FileInput(attrs={"accept": ".csv,.tsv,.tab,.txt,.json,.jsonl,.ndjson,.parquet,.gz,.zip"}),
    )


class HubForm(ServiceErrorsMixin):
    """Instead of a file: a data set of the model hub."""

    hub = forms.CharField(label=_("Hub id"), max_length=150, help_text=_("For example “owner/name”."))
    config = forms.CharField(
        label=_("Configuration"), max_length=100, required=False, help_text=_("If it has several.")
    )
    revision = forms.CharField(
        label=_("Revision"),
        max_length=100,
        required=False,
        help_text=_("A commit, branch or tag. By default the newest."),
    )
    text_column = forms.CharField(label=_("Text column"), max_length=200, required=False)
    label_column = forms.CharField(
        label=_("Label column"),
        max_length=200,
        required=False,
        help_text=_("By default columns are found by their names."),
    )
    name = forms.CharField(
        label=_("Dataset name"), max_length=80, help_text=_("Letters, digits, dots, hyphens and underscores.")
    )


class StoreForm(forms.Form):
    """Step two: correct how the file was read, and name the dataset."""

    encoding = forms.ChoiceField(label=_("Encoding"), required=False)
    delimiter = forms.ChoiceField(label=_("Delimiter"), required=False)
    text_column = forms.ChoiceField(label=_("Text column"), required=False)
    label_column = forms.ChoiceField(label=_("Label column"), required=False)
    name = forms.CharField(
        label=_("Name"), max_length=80, help_text=_("Letters, digits, dots, hyphens and underscores.")
    )
    note = forms.CharField(label=_("Note"), max_length=300, required=False, help_text=_("Where the rows come from."))

    def __init__(self, *args: Any, encodings: tuple[str, ...], delimiter: str, columns: list[str], **kwargs: Any):
        super().__init__(*args, **kwargs)
        offered = list(dict.fromkeys([*encodings, *ENCODINGS])) if encodings else []
        self._set_choices("encoding", [(codec, ENCODINGS.get(codec, codec.upper())) for codec in offered])
        delimiters = {delimiter: delimiter, **DELIMITER_WORDS} if delimiter else {}
        self._set_choices("delimiter", list(delimiters.items()))
        for name in ("text_column", "label_column"):
            self._set_choices(name, [("", _("choose a column")), *((column, column) for column in columns)])

    def _set_choices(self, name: str, choices: list[tuple[Any, Any]]) -> None:
        """Set the choices of a field, or remove the field if there are none."""
        if choices:
            cast(forms.ChoiceField, self.fields[name]).choices = choices
        else:
            del self.fields[name]
