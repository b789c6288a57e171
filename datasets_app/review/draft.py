"""Changes to rows that a person collects one by one, until they become one version."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from accounts.models import User
from datasets_app.conversations import shown_text
from datasets_app.models import DataTask, DraftEdit, Version
from datasets_app.versions import changes
from web.errors import ConflictError, InvalidError

MOST_EDITS = 1000  # of a person on a version


@dataclass(frozen=True, slots=True)
class DraftRow:
    """A row of the version, and what the draft makes of it: None for both drops it."""

    row: int
    text: str
    label: str
    new_text: str | None
    new_label: str | None

    @property
    def is_dropped(self) -> bool:
        return self.new_text is None and self.new_label is None


def put(*, user: User, version: Version, row: int, cells: dict[str, str] | None) -> DraftEdit | None:
    """Keep what shall become of a row: new `text` and `label`, or None to drop it. It replaces what was kept before.

    Returns None, and keeps nothing, if the row stays as it is. Raises InvalidError as `changes.edit` does.
    """
    import polars as pl  # half a second, which pages without rows need not wait for

    before = pl.scan_parquet(version.path).filter(pl.col("row") == row).collect()
    after = changes.edit(before, {"rows": {row: cells}}, version.kind)
    edits = DraftEdit.objects.filter(version=version, author=user)
    if after.equals(before):
        edits.filter(row=row).delete()
        return None
    if edits.exclude(row=row).count() >= MOST_EDITS:
        raise InvalidError(
            _("A draft holds %(most)s changes at most. Save it as a version first.") % {"most": MOST_EDITS}, field="row"
        )
    values = {"text": None, "label": None} if cells is None else after.select("text", "label").row(0, named=True)
    return DraftEdit.objects.update_or_create(version=version, author=user, row=row, defaults=values)[0]


def list_rows(user: User, version: Version) -> list[DraftRow]:
    """Return the rows of a person's draft beside what they are in the version."""
    import polars as pl  # as above

    shown = shown_text if version.is_chat else str
    edits = {edit.row: edit for edit in DraftEdit.objects.filter(version=version, author=user)}
    if not edits:
        return []
    rows = pl.scan_parquet(version.path).filter(pl.col("row").is_in(list(edits))).sort("row").collect()
    return [
        DraftRow(
            row["row"],
            shown(row["text"]),
            row["label"],
            edit.text if edit.text is None else shown(edit.text),
            edit.label,
        )
        for row in rows.iter_rows(named=True)
        for edit in [edits[row["row"]]]
    ]


def count(user: User, version: Version) -> int:
    """Return how many rows a person's draft of a version changes."""
    return DraftEdit.objects.filter(version=version, author=user).count()


def discard(*, user: User, version: Version, row: int | None = None) -> None:
    """Forget the draft, or what it says of one row."""
    edits = DraftEdit.objects.filter(version=version, author=user)
    (edits if row is None else edits.filter(row=row)).delete()


def save(*, user: User, version: Version) -> Version | DataTask:
    """Make the next version of all changes of the draft. The draft is kept until the version is there."""
    rows: dict[str, Any] = {}
    for edit in DraftEdit.objects.filter(version=version, author=user):
        is_dropped = edit.text is None and edit.label is None
        rows[str(edit.row)] = None if is_dropped else {"text": edit.text, "label": edit.label}
    if not rows:
        raise ConflictError(_("The draft is empty, so there is nothing to make a new version of."))
    return changes.make_version(user=user, version=version, change={"did": "edit", "rows": rows})
