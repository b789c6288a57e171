"""Make a version from an earlier one: fix a finding, edit rows, rename a label, add the rows of another version.

A version is never modified. Each change makes a new one, which records its parent, its author and the change.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import polars as pl
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.models import User
from datasets_app import descriptions, tasks
from datasets_app.checks import findings
from datasets_app.checks.chats import as_checks_see
from datasets_app.checks.labels import similar_labels
from datasets_app.conversations import parse_edited, repair_contents, with_summaries
from datasets_app.models import DataTask, DraftEdit, Suspect, Version
from datasets_app.progress import ReportProgress
from datasets_app.reading.columns import ColumnChoice
from datasets_app.reading.options import CHAT_KINDS
from datasets_app.reading.rows import parse_label, refuse_untrainable, rename_in
from datasets_app.reading.stored_rows import Rows
from datasets_app.versions import creation
from datasets_app.versions.canonical import count_values
from datasets_app.versions.upload_storage import AT_ONCE
from engine.data.near_duplicates import normalised_text
from web.errors import ConflictError, InvalidError

LONGEST_TEXT = 100_000  # characters of an edit by hand
LONGEST_LABEL = 300
PREVIEWED = 5  # rows of each fix that its preview shows
_TAG = re.compile(r"(?s)<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]{0,300}>")


def make_version(*, user: User, version: Version, change: dict[str, Any], note: str = "") -> Version | DataTask:
    """Make the next version of a small one and return it; of a large one return the task that makes it."""
    if is_large(version):
        return tasks.submit(
            user=user,
            kind=DataTask.Kind.CHANGE,
            name=version.dataset.name,
            version=version,
            arguments={"change": change, "note": note},
        )
    creation.check_name(user, version.dataset.name)
    prepared = prepare(user, version, change, note)
    with transaction.atomic():
        made = creation.insert(prepared)
        forget_drafted(user, version, change)
    return made


def forget_drafted(user: User, version: Version, change: dict[str, Any]) -> None:
    """Remove from a person's draft the rows that a change has edited."""
    if change["did"] != "edit":
        return
    DraftEdit.objects.filter(version=version, author=user, row__in=[int(row) for row in change["rows"]]).delete()


def is_large(version: Version) -> bool:
    """Return whether a change of the version takes too long for a request."""
    return sum(version.sizes().values()) > AT_ONCE / 2  # Parquet takes about half the bytes of the CSV file


def change_for_task(task: DataTask, report: ReportProgress) -> Callable[[], dict[str, Any]]:
    """Prepare the version of a task; return the function that inserts it."""
    assert task.version
    report("checking")
    version, change = task.version, task.arguments["change"]
    prepared = prepare(task.owner, version, change, task.arguments["note"])

    def insert() -> dict[str, Any]:
        result = creation.insert_as_result(prepared)
        forget_drafted(task.owner, version, change)
        return result

    return insert


def prepare(user: User, version: Version, change: dict[str, Any], note: str) -> creation.PreparedVersion:
    """Apply a change to the rows of a version, check the result and write it to disk.

    Raises ConflictError if no row changes.
    """
    before = pl.read_parquet(version.path)
    after = _CHANGES[change["did"]](before, change, version.kind)
    if after.equals(before):
        raise ConflictError(_("This changes no row, so no new version was made."))
    choice = ColumnChoice(("text",), ("label",), split="split" if "split" in after.columns else None)
    rows = Rows(after, choice, version.kind)
    refuse_untrainable(rows)
    columns = ["row", "text", "label", *(["split"] if "split" in before.columns else [])]
    same = before.select(columns).join(after.select(columns), on=columns, how="semi", nulls_equal=True).height
    summary = {key: value for key, value in change.items() if key != "rows"}
    summary["count"] = max(before.height, after.height) - same  # rows that were dropped, added or modified
    if change["did"] == "fix":
        summary["removed"] = before.height - after.height
    if not note:
        with override("en"):  # a note is stored as people write it, in one language
            note = descriptions.describe_change(summary)
    return creation.prepare(
        user, version.dataset.name, rows, source=version.source, note=note, parent=version, change=summary
    )


# --- fixes -------------------------------------------------------------------------------------------------------


def fix(frame: pl.DataFrame, change: dict[str, Any], kind: str) -> pl.DataFrame:
    """Fix the finding with the code `change["code"]`, or all with `change["codes"]`, one after another."""
    fixed = frame
    for code in codes_in_order(change.get("codes") or [change["code"]]):
        fixed = fix_finding(fixed, code, kind)
    if fixed.equals(frame):
        raise ConflictError(_("This version no longer has this finding, so there is nothing to fix."))
    return fixed


def codes_in_order(codes: list[str]) -> list[str]:
    """Return the codes of findings in the order in which they are fixed, without those that have no fix."""
    return [code for code in FIXED if code in codes]


def fix_finding(frame: pl.DataFrame, code: str, kind: str) -> pl.DataFrame:
    """Repair the texts that have a finding, or leave its rows out; return the frame as it is if it lacks the finding."""
    if code == "similar_labels":
        groups = similar_labels(count_values(frame["label"]))
        spellings = {label: group[0] for group in groups for label in group[1:]}  # that of most rows comes first
        return frame.with_columns(pl.col("label").replace(spellings))
    has_finding = pl.col("row").is_in(rows_with_finding(frame, code, kind))
    if repair := _REPAIRS.get(code):
        if kind in CHAT_KINDS:
            repair = partial(repair_contents, repair=repair, kind=kind)
        repaired = frame.filter(has_finding).with_columns(pl.col("text").map_elements(repair, pl.String))
        fixed = frame.update(repaired.select("row", "text"), on="row")
        return fixed.filter(findings.has_visible_text())
    if code == "label_conflict":
        # Of each text the rows with its commonest label stay. On a tie nobody knows which is right, so none stays.
        conflicting = frame.filter(has_finding).with_columns(normalised_text().alias("same"))
        votes = conflicting.group_by("same", "label").len()
        winners = votes.filter(pl.col("len") == pl.col("len").max().over("same")).filter(pl.len().over("same") == 1)
        agreeing = conflicting.join(winners, on=["same", "label"], how="semi")["row"]
        has_finding = has_finding & ~pl.col("row").is_in(agreeing.to_list())
    elif code in ("split_leakage", "prompt_leakage"):
        has_finding = has_finding & (pl.col("split") == "train")
    return frame.filter(~has_finding)


def rows_with_finding(frame: pl.DataFrame, code: str, kind: str) -> list[int]:
    """Return the numbers of the rows that have a finding."""
    if code in findings.TEXT_CODES:  # a row alone tells; the checks of all rows take ten times as long
        slices = (as_checks_see(part, kind) for part in frame.iter_slices(findings.SLICE))
        parts = (findings.text_facts(part).filter(code) for part in slices)
        return [row for part in parts for row in part["row"]]
    results = findings.run_checks(Rows(frame, ColumnChoice(("text",), ("label",)), kind)).results
    return [row for result in results if result.code == code for row in result.rows]


def without_markup(text: str) -> str:
    """Remove tags and replace entities with their characters."""
    text = _TAG.sub(" ", text)
    text = html.unescape(text)  # after the tags: an escaped tag is text that somebody wrote
    text = re.sub(r"[ \t]{2,}", " ", text)
    return text.strip()


def without_personal_data(text: str) -> str:
    """Replace e-mail addresses, phone numbers and identity numbers with a placeholder."""
    text = re.sub(findings.EMAIL, "[e-mail]", text)
    text = re.sub(findings.TAIWAN_ID, lambda match: "[id]" if findings.is_taiwan_id(match[0]) else match[0], text)
    return re.sub(findings.PHONE, "[phone]", text)


def _without_mojibake(text: str) -> str:
    from ftfy import fix_encoding  # compiles large patterns when imported

    return fix_encoding(text)


_REPAIRS: dict[str, Callable[[str], str]] = {
    "markup": without_markup,
    "control_characters": lambda text: re.sub(findings.CONTROL, "", text),
    "encoding": _without_mojibake,
    "personal_data": without_personal_data,
}
_DROPPED = (
    "too_short",
    "exact_duplicate",
    "near_duplicate",
    "role_order",
    "empty_turn",
    "same_answers",
    "refusal",
    "long_conversation",
    "label_conflict",
    "split_leakage",
    "prompt_leakage",
    "rare_label",
    "mixed_language",
    "no_label",
)
# The findings with a fix. Texts and labels are repaired first: only then it shows which rows are equal, and which labels rare.
FIXED = (*_REPAIRS, "similar_labels", *_DROPPED)


@dataclass(frozen=True, slots=True)
class FixEffect:
    """What one of several fixes does to the rows that the fixes before it have left."""

    code: str
    rewritten: list[dict[str, Any]]  # row, text, text_new, label, label_new
    dropped: list[dict[str, Any]]  # row, text, label
    rewritten_count: int
    dropped_count: int

    def summarised(self) -> "FixEffect":
        """Return the effect on conversations with what they say in place of their JSON."""
        rewritten = [with_summaries(row) for row in self.rewritten]
        return replace(self, rewritten=rewritten, dropped=[with_summaries(row) for row in self.dropped])


def preview_fixes(version: Version, codes: list[str]) -> list[FixEffect]:
    """Return what each of some fixes would do, in their order, with a few examples. Nothing is stored.

    Raises ConflictError if the version is large.
    """
    if is_large(version):
        raise ConflictError(
            _("This version is too large for a preview. Save the fixes as a new version, and compare both.")
        )
    frame = pl.read_parquet(version.path)
    effects = []
    for code in codes_in_order(codes):
        fixed = fix_finding(frame, code, version.kind)
        effects.append(_describe_effect(code, frame, fixed))
        frame = fixed
    return effects


def _describe_effect(code: str, before: pl.DataFrame, after: pl.DataFrame) -> FixEffect:
    columns = ["row", "text", "label"]
    pairs = before.select(columns).join(after.select(columns), on="row", suffix="_new", maintain_order="left")
    is_rewritten = (pl.col("text") != pl.col("text_new")) | (pl.col("label") != pl.col("label_new"))
    rewritten = pairs.filter(is_rewritten)
    dropped = before.select(columns).join(after, on="row", how="anti", maintain_order="left")
    return FixEffect(
        code,
        rewritten.head(PREVIEWED).to_dicts(),
        dropped.head(PREVIEWED).to_dicts(),
        rewritten_count=rewritten.height,
        dropped_count=dropped.height,
    )


# --- by hand -----------------------------------------------------------------------------------------------------


def edit(frame: pl.DataFrame, change: dict[str, Any], kind: str) -> pl.DataFrame:
    """Edit rows by `change["rows"]`: {row: {"text", "label"}} sets what is given, {row: None} drops the row.

    Raises InvalidError for a row that does not exist, and for a text or label that is empty or too long.
    """
    edits = {int(row): cells for row, cells in change["rows"].items()}
    unknown = set(edits) - set(frame["row"])
    if unknown:
        raise InvalidError(_("This version has no row %(row)s.") % {"row": min(unknown)}, field="rows")
    frame = frame.filter(~pl.col("row").is_in([row for row, cells in edits.items() if cells is None]))
    new_rows = []
    for row, cells in edits.items():
        if cells is None:
            continue
        new_row = {"row": row, "text": cells.get("text"), "label": cells.get("label")}  # None keeps the value
        if kind in CHAT_KINDS:
            new_row["label"] = None
        for name, most in (("text", LONGEST_TEXT), ("label", LONGEST_LABEL)):
            value = new_row[name]
            if value is None:
                continue
            if not 0 < len(str(value).strip()) <= most:
                message = _("The %(name)s of a row must have 1 to %(most)s characters.") % {"name": name, "most": most}
                raise InvalidError(message, field=f"rows.{name}")
            new_row[name] = str(value).replace("\x00", "\ufffd")
            if name == "text" and kind in CHAT_KINDS:
                new_row[name] = parse_edited(new_row[name], kind)
        if new_row["label"] is not None:
            new_row["label"] = parse_label(str(new_row["label"]), kind)
        new_rows.append(new_row)
    if not new_rows:
        return frame
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "row": frame.schema["row"],
        "text": pl.String,
        "label": pl.String,
    }
    return frame.update(pl.DataFrame(new_rows, schema=schema), on="row")


def rename(frame: pl.DataFrame, change: dict[str, Any], kind: str) -> pl.DataFrame:
    """Rename `change["label"]`, or all of `change["labels"]`, to `change["to"]`, and merge them with a label of that name."""
    old_labels = change.get("labels") or [change["label"]]
    new_names = {stored: rename_in(stored, old_labels, change["to"], kind) for stored in frame["label"].unique()}
    return frame.with_columns(pl.col("label").replace_strict(new_names, return_dtype=pl.String))


def merge(frame: pl.DataFrame, change: dict[str, Any], kind: str) -> pl.DataFrame:
    """Append the rows of another version that are not here yet, numbered after the last row."""
    version = Version.objects.get(pk=change["version_pk"])
    if version.kind != kind or version.has_pairs != ("text_pair" in frame.columns):
        raise InvalidError(_("The rows of the other version are of another kind and cannot be added."), field="other")
    other = pl.read_parquet(version.path)
    new_rows = other.unique(["text", "label"], keep="first", maintain_order=True).join(
        frame.select("text", "label"), on=["text", "label"], how="anti", maintain_order="left"
    )
    last = int(frame["row"].max() or 0)  # type: ignore[arg-type]  # max: of any type
    numbers = pl.int_range(last + 1, last + 1 + new_rows.height, eager=True).cast(frame.schema["row"])
    return pl.concat([frame, new_rows.with_columns(numbers.alias("row"))], how="diagonal").select(frame.columns)


_CHANGES: dict[str, Callable[[pl.DataFrame, dict[str, Any], str], pl.DataFrame]] = {
    "fix": fix,
    "edit": edit,
    "rename": rename,
    "merge": merge,
    "relabel": edit,
}


def from_decisions(*, user: User, version: Version) -> Version | DataTask:
    """Make the next version from the decisions about suspects: labels corrected, rows dropped."""
    decided = Suspect.objects.filter(version=version, decision__isnull=False)
    rows: dict[int, dict[str, str] | None] = {}
    for suspect in decided:
        if suspect.decision != suspect.label:
            rows[suspect.row] = (
                {"label": suspect.decision} if suspect.decision else None
            )  # an empty decision drops the row
    if not rows:
        raise ConflictError(_("No label has been corrected yet, so there is nothing to make a new version of."))
    return make_version(user=user, version=version, change={"did": "relabel", "rows": rows})
