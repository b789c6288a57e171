"""An upload before it is stored: how it is read with a person's options, and what the preview shows of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.translation import gettext as _

from datasets_app import reading_descriptions
from datasets_app.conversations import Turn, turns_of
from datasets_app.forms import SHOWN_COLUMNS, roles_of
from datasets_app.models import Dataset, Version
from datasets_app.reading.options import CHAT_KINDS, column_options, file_options
from datasets_app.reading.uploads import PendingUpload
from web.errors import ConflictError, InvalidError, LorasiteError

if TYPE_CHECKING:
    from datasets_app.reading.columns import ColumnChoice
    from datasets_app.reading.stored_rows import Rows
    from datasets_app.reading.table import Table

PREVIEW_ROWS = 20
SHOWN_LABELS = 30
SHOWN_CONVERSATIONS = 3
RAW_LINES = 12
_CORRECTABLE = ("encoding", "delimiter", "quote", "header", "skip_lines", "sheet")  # fields of the preview


def is_correctable(error: LorasiteError) -> bool:
    """Return whether other settings of the preview may help."""
    return any(problem["field"] in _CORRECTABLE for problem in error.problems)


def read_head(pending: PendingUpload, options: dict[str, Any]) -> "Table":
    """Read the first rows of an upload."""
    from datasets_app.reading import sandbox

    return sandbox.read(
        pending.file,
        pending.filename,
        head=True,
        limit=settings.UPLOAD_LIMIT,
        options=file_options(options),
        seconds=sandbox.QUICK_SECONDS,
    )


@dataclass
class Reading:
    """An upload as it is read with a person's options."""

    options: dict[str, Any]
    table: "Table | None" = None
    choice: "ColumnChoice | None" = None
    rows: "Rows | None" = None
    problem: InvalidError | ConflictError | None = None


def read(pending: PendingUpload, options: dict[str, Any]) -> Reading:
    """Read the first rows with the person's options, and without what does not fit."""
    from datasets_app.reading import columns, rows  # imports polars, which takes half a second

    reading = Reading(options)
    try:
        reading.table = read_head(pending, options)
    except InvalidError as error:
        if not is_correctable(error):
            raise
        reading.problem = error
        return reading
    names = {*reading.table.columns}
    for name in ("text_columns", "label_columns"):  # other settings of the file may have renamed the columns
        options[name] = [column for column in options.get(name, []) if column in names]
    for name in ("text_pair_column", "split_column"):
        options[name] = options.get(name, "") if options.get(name) in names else ""
    options["column_roles"] = {
        column: role for column, role in options.get("column_roles", {}).items() if column in names
    }
    for name in [name for name, value in options.items() if value in ("", [], {}) and name != "quote"]:
        del options[name]
    try:
        reading.choice = columns.choose_columns(reading.table, column_options(options))
        reading.rows = rows.select_rows(reading.table, reading.choice)
    except InvalidError as error:
        reading.problem = error
        reading.choice = reading.choice or nearest_choice(reading.table, options)
    return reading


def nearest_choice(table: "Table", options: dict[str, Any]) -> "ColumnChoice":
    """Return what to show of a choice that does not fit: its split column with values to explain, else the guess."""
    from datasets_app.reading import columns

    split = options.get("split_column") or None
    if split is None:
        return columns.guess(table)
    without_split = {name: value for name, value in options.items() if not name.startswith("split_")}
    try:
        choice = columns.choose_columns(table, column_options(without_split))
    except InvalidError:
        choice = columns.guess(table)
    return replace(choice, split=split, split_values=options.get("split_values", {}))


def current_roles(reading: Reading) -> dict[str, str]:
    """Return the fields of the columns as they are now."""
    if reading.table is None:
        return {}
    roles = roles_of(reading.choice)
    return {f"role_{i}": roles.get(name, "") for i, name in enumerate(reading.table.columns[:SHOWN_COLUMNS])}


def first_rows(table: "Table | None") -> list[list[str]]:
    if table is None:
        return []
    rows = table.frame.head(PREVIEW_ROWS).select(table.columns[:SHOWN_COLUMNS])
    return [[str(value)[:200] for value in row] for row in rows.iter_rows()]


def raw_lines(pending: PendingUpload) -> list[str]:
    """Return the first lines as they stand in a file that could not be read."""
    with open(pending.file, "rb") as file:
        lines = file.read(20_000).decode("utf-8", "replace").splitlines()
    return [line[:200] for line in lines[:RAW_LINES]]


def first_conversations(rows: "Rows | None") -> list[list[Turn]]:
    """Return the messages of the first conversations, as they would be stored."""
    if rows is None or rows.kind not in CHAT_KINDS:
        return []
    return [turns_of(text) for text in rows.frame["text"].head(SHOWN_CONVERSATIONS)]


def labels_of_first_rows(rows: "Rows | None") -> list[tuple[str, int]]:
    """Return the labels of the first rows and how many rows have each."""
    if rows is None or rows.frame.is_empty():
        return []
    from datasets_app.reading.rows import count_labels

    return [*count_labels(rows.frame["label"], rows.kind).items()][:SHOWN_LABELS]


def labels_that_look_alike(rows: "Rows | None") -> list[str]:
    """Return the labels that look like others, group by group; the groups can be merged."""
    if rows is None or rows.kind != Version.Kind.LABELS or rows.frame.is_empty():
        return []
    from datasets_app.checks.labels import similar_labels
    from datasets_app.reading.rows import count_labels

    groups = similar_labels(count_labels(rows.frame["label"], rows.kind))
    return [" = ".join(group[:5]) for group in groups[:5]]


def notes_on(reading: Reading) -> Iterator[str]:
    """Yield what a person should know before storing the rows."""
    if reading.table is None or reading.choice is None:
        return
    from datasets_app.reading import columns

    notes = [*reading.table.notes, *(reading.rows.notes if reading.rows else [])]
    notes += [*columns.notes_on_choice(reading.table, reading.choice)]
    for note in notes:
        yield reading_descriptions.describe_note(note)
    label = reading.choice.label
    is_chosen = reading.options.get("label_columns") or reading.table.label
    if label and not is_chosen and label.lower() not in columns.LABEL_NAMES:
        yield _("The label column was guessed from its content; check that it is the right one.")


def rows_left_out(reading: Reading) -> list[tuple[str, int]]:
    """Return why rows were left out, and how many."""
    counts = reading.rows.left_out if reading.rows else {}
    return [(reading_descriptions.describe_reason(reason), count) for reason, count in counts.items()]


def changes_of_labels(existing: Dataset | None, reading: Reading) -> dict[str, list[str]]:
    """Return the labels that the newest version of the dataset lacks, and those that only it has."""
    if existing is None or reading.rows is None or not existing.versions.all():
        return {}
    before = {*existing.latest.labels}
    now = {label for label, _count in labels_of_first_rows(reading.rows)}
    is_whole = reading.table is not None and reading.table.complete and len(now) < SHOWN_LABELS
    return {"new": sorted(now - before), "missing": sorted(before - now) if is_whole else []}
