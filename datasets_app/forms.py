"""Forms of the upload pages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from datasets_app.models import Version
from datasets_app.reading.encodings import ENCODINGS
from datasets_app.reading.options import LONGEST_DELIMITER
from datasets_app.reading_descriptions import DELIMITER_WORDS
from web.forms import ServiceErrorsMixin
from web.name_fields import NameFormField

if TYPE_CHECKING:
    from datasets_app.reading.columns import ColumnChoice
    from datasets_app.reading.table import Table

MOST_FILES = 20  # of one upload, for example its splits
SHOWN_COLUMNS = 60
SHOWN_SPLIT_VALUES = 20
_TYPED = {"tab": "\t", "\\t": "\t", "space": " ", "none": ""}  # how people type what they cannot see
NAME_HELP = _("Letters and digits of any script, dots, hyphens and underscores.")
CHAT_ROLES = {
    "messages": _("messages"),
    "prompt": _("prompt"),
    "answer": _("answer"),
    "system": _("system message"),
    "chosen": _("chosen answer"),
    "rejected": _("rejected answer"),
}
ROLES = [
    ("", _("not used")),
    ("text", _("text")),
    ("text_pair", _("second text")),
    ("label", _("label")),
    ("split", _("split")),
    *CHAT_ROLES.items(),
]
SPLITS = [("", _("leave out")), ("train", "train"), ("eval", "eval"), ("test", "test")]


class _FilesInput(forms.FileInput):
    allow_multiple_selected = True


class _FilesField(forms.FileField):
    """One file, or several that belong together."""

    widget = _FilesInput

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile]:
        files = data if isinstance(data, list) else [data]
        if len(files) > MOST_FILES:
            raise forms.ValidationError(_("Choose at most %(most)s files.") % {"most": MOST_FILES})
        return [super(_FilesField, self).clean(file, initial) for file in files]


class UploadForm(forms.Form):
    """Step one: the file."""

    file = _FilesField(
        label=_("Data file"),
        allow_empty_file=True,  # the reader gives a better error for it
        help_text=_(
            "CSV, TSV, a spreadsheet, JSON, JSON lines, Parquet, plain text, or the export of an annotation tool, also as .gz or .zip. "
            "Several files are read as splits if they are called train, validation and test."
        ),
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
    name = NameFormField(label=_("Dataset name"), help_text=NAME_HELP)


class PreviewForm(forms.Form):
    """Step two: correct how the file was read, and name the dataset.

    A column's role is the field `role_<number>`, beside the hidden `column_<number>` with its name; what a value of the split
    column means is `split_<number>`, beside `value_<number>`. Numbers count from 0.
    """

    encoding = forms.ChoiceField(label=_("Encoding"), required=False)
    sheet = forms.ChoiceField(label=_("Sheet"), required=False)
    delimiter = forms.CharField(
        label=_("Delimiter"),
        required=False,
        max_length=LONGEST_DELIMITER,
        strip=False,
        help_text=_("A character or a few, or tab or space."),
    )
    quote = forms.CharField(
        label=_("Quotation mark"), required=False, max_length=4, help_text=_("One character, or none.")
    )
    header = forms.TypedChoiceField(
        label=_("First line"),
        required=False,
        choices=[("", _("as guessed")), ("yes", _("names the columns")), ("no", _("is a row"))],
        coerce=lambda value: value == "yes",
        empty_value=None,
    )
    skip_lines = forms.IntegerField(
        label=_("Lines to skip"), required=False, min_value=0, max_value=10_000, help_text=_("Before the header.")
    )
    kind = forms.ChoiceField(
        label=_("What the rows have"), required=False, choices=[("", _("as guessed")), *Version.Kind.choices]
    )
    merge_labels = forms.BooleanField(label=_("Merge labels that look alike"), required=False)
    name = NameFormField(label=_("Name"), help_text=NAME_HELP)
    note = forms.CharField(label=_("Note"), max_length=300, required=False, help_text=_("Where the rows come from."))

    def __init__(self, *args: Any, table: "Table | None", choice: "ColumnChoice | None", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.columns = table.columns if table else []
        encodings = table.encodings if table else tuple(ENCODINGS)
        offered = list(dict.fromkeys([*encodings, *ENCODINGS])) if encodings else []
        self._offer("encoding", [(codec, ENCODINGS.get(codec, codec.upper())) for codec in offered])
        self._offer("sheet", [(sheet, sheet) for sheet in table.sheets] if table and len(table.sheets) > 1 else [])
        if table and not table.delimiter:
            for name in ("delimiter", "quote"):
                del self.fields[name]
        if table and table.kind not in ("csv", "tsv", "workbook"):
            for name in ("header", "skip_lines"):
                del self.fields[name]
        if table and table.delimiter:
            self._hint("delimiter", DELIMITER_WORDS.get(table.delimiter, table.delimiter))
            self._hint("quote", table.quote or "none")
        if table and "skip_lines" in self.fields:
            self._hint("skip_lines", table.skipped_lines)
        roles = roles_of(choice)
        for number, column in enumerate(self.columns[:SHOWN_COLUMNS]):
            self.fields[f"role_{number}"] = forms.ChoiceField(
                label=_("Role of %(column)s") % {"column": column},
                choices=ROLES,
                required=False,
                initial=roles.get(column, ""),
            )
        self.split_values = _values_to_explain(table, choice)
        for number, (value, meaning) in enumerate(self.split_values):
            self.fields[f"split_{number}"] = forms.ChoiceField(
                label=value or _("(empty)"), choices=SPLITS, required=False, initial=meaning
            )

    def _offer(self, name: str, choices: Sequence[tuple[Any, Any]]) -> None:
        """Set the choices of a field, or remove the field if there are none."""
        field = self.fields[name]
        if choices and isinstance(field, forms.ChoiceField):
            field.choices = choices
        else:
            del self.fields[name]

    def _hint(self, name: str, guess: Any) -> None:
        """Show in an empty field what was guessed."""
        self.fields[name].widget.attrs["placeholder"] = str(guess)

    def role_fields(self) -> list[forms.BoundField]:
        return [self[f"role_{number}"] for number in range(len(self.columns[:SHOWN_COLUMNS]))]

    def split_fields(self) -> list[tuple[str, forms.BoundField]]:
        return [(value, self[f"split_{number}"]) for number, (value, _meaning) in enumerate(self.split_values)]


def roles_of(choice: "ColumnChoice | None") -> dict[str, str]:
    """Return {column: role}."""
    if choice is None:
        return {}
    roles = dict.fromkeys(choice.texts, "text") | dict.fromkeys(choice.labels, "label")
    roles |= {choice.pair: "text_pair"} if choice.pair else {}
    roles |= {column: role for role, columns in choice.roles.items() for column in columns}
    return roles | ({choice.split: "split"} if choice.split else {})


def _values_to_explain(table: "Table | None", choice: "ColumnChoice | None") -> list[tuple[str, str]]:
    """Return the values of the split column with what they mean; none where all of them are names of splits."""
    if table is None or choice is None or not choice.split:
        return []
    from datasets_app.reading.columns import meanings_of_splits  # polars takes half a second to import

    values = table.frame[choice.split].str.strip_chars().str.to_lowercase().unique().sort().to_list()
    known = meanings_of_splits(choice.split)
    if all(value in known for value in values) or len(values) > SHOWN_SPLIT_VALUES:
        return []
    return [(value, choice.split_values.get(value, known.get(value, ""))) for value in values]


def typed_character(value: str | None) -> str | None:
    """Return the character that a person typed, or named: tab, space, none."""
    return _TYPED.get(value.strip().lower(), value) if value and value.strip() else value or None
