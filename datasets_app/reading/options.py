"""What a person can say about a file. What is left out is guessed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from web.errors import InvalidError

LONGEST_DELIMITER = 8  # characters
LABEL_KINDS = ("labels", "multi_label", "scores", "spans")
CHAT_KINDS = ("conversations", "preferences", "text")  # whose rows are messages as JSON, without labels
KINDS = (*LABEL_KINDS, *CHAT_KINDS)  # of datasets that can be stored
ROLES = (
    "messages",
    "prompt",
    "answer",
    "system",
    "chosen",
    "rejected",
)  # of the columns that conversations are made of


@dataclass(frozen=True)
class FileOptions:
    """How to turn the bytes of a file into a table."""

    encoding: str = ""
    delimiter: str = ""
    quote: str | None = None  # an empty string: marks are part of the texts
    header: bool | None = None
    skip_lines: int | None = None  # before the header, or before the first row
    sheet: str = ""
    prose: bool | None = None  # whether a text file holds documents, and no table

    def __post_init__(self) -> None:
        if len(self.delimiter) > LONGEST_DELIMITER or set(self.delimiter) & set('"\r\n'):
            message = _("The delimiter must be one to eight characters, without quotation marks or line breaks.")
            raise InvalidError(message, field="delimiter")
        if self.quote and (len(self.quote) != 1 or self.quote in "\r\n" or self.quote == self.delimiter):
            message = _("The quotation mark must be one character, and not the delimiter.")
            raise InvalidError(message, field="quote")


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of the table hold what."""

    text: tuple[str, ...] = ()  # joined in this order
    text_pair: str = ""
    label: tuple[str, ...] = ()  # several: one column of yes and no for each label
    split: str = ""
    split_values: Mapping[str, str] = field(default_factory=dict)  # {value in the file: train, eval, test or ""}
    kind: str = ""
    merge_labels: bool = False  # those that look alike
    roles: Mapping[str, str] = field(default_factory=dict)  # {column: one of ROLES}

    def __post_init__(self) -> None:
        if self.kind and self.kind not in KINDS:
            message = _("“%(kind)s” is no kind of dataset that can be stored. Choose one of: %(known)s.")
            raise InvalidError(message % {"kind": self.kind[:40], "known": ", ".join(KINDS)}, field="kind")
        if unknown := {*self.roles.values()} - {*ROLES}:
            message = _("“%(role)s” is no role of a column of conversations. Choose one of: %(known)s.")
            facts = {"role": min(unknown)[:40], "known": ", ".join(ROLES)}
            raise InvalidError(message % facts, field="column_roles")


def file_options(fields: Mapping[str, Any]) -> FileOptions:
    """Return the options for reading the file among the fields of a form, a request or a task."""
    skip_lines = fields.get("skip_lines")
    return FileOptions(
        encoding=fields.get("encoding") or "",
        delimiter=fields.get("delimiter") or "",
        quote=fields.get("quote"),
        header=fields.get("header"),
        skip_lines=int(skip_lines) if skip_lines not in (None, "") else None,
        sheet=fields.get("sheet") or "",
        prose=fields["kind"] == "text" if fields.get("kind") else None,
    )


def column_options(fields: Mapping[str, Any]) -> ColumnOptions:
    """Return the options for choosing columns among the fields of a form, a request or a task."""
    text = tuple(fields.get("text_columns") or ()) or _as_tuple(fields.get("text_column"))
    label = tuple(fields.get("label_columns") or ()) or _as_tuple(fields.get("label_column"))
    return ColumnOptions(
        text=text,
        text_pair=fields.get("text_pair_column") or "",
        label=label,
        split=fields.get("split_column") or "",
        split_values=fields.get("split_values") or {},
        kind=fields.get("kind") or "",
        merge_labels=bool(fields.get("merge_labels")),
        roles=fields.get("column_roles") or {},
    )


def _as_tuple(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()
