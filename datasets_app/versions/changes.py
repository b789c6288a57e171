"""From one version to the next: one-click fixes of findings, edits by hand, renamed labels, rows of another version.

A version is never changed; each change makes a new one, whose parent, author and `change` say where it comes from.
"""

import html
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.models import User
from datasets_app import services, wording
from datasets_app.checks import findings
from datasets_app.models import DataTask, Suspect, Version
from datasets_app.reading.columns import Chosen, Rows, refuse_untrainable
from engine.data.near_duplicates import same_text
from web.errors import Conflict, Invalid
from work.models import Status

if TYPE_CHECKING:
    from datasets_app.jobs import Told

LONGEST_TEXT, LONGEST_LABEL = 100_000, 300  # characters of an edit by hand
_TAG = re.compile(r"(?s)<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]{0,300}>")


def make(*, user: User, version: Version, change: dict[str, Any], note: str = "") -> Version | DataTask:
    """The next version at once where that takes about a second, else the task that makes it."""
    if sum(version.sizes().values()) > services.AT_ONCE / 2:  # packed to about half
        kind = DataTask.Kind.CHANGE
        return services.submit(
            user=user, kind=kind, name=version.dataset.name, version=version, change=change, note=note
        )
    services.check_name(user, version.dataset.name)
    return services.insert(prepare(user, version, change, note))


def carry_out(task: DataTask, told: "Told") -> Callable[[], dict[str, Any]]:
    """The work of a task that makes a version."""
    assert task.version
    told("checking")
    prepared = prepare(task.owner, task.version, task.arguments["change"], task.arguments["note"])
    return partial(_store, prepared)


def _store(prepared: services.Prepared) -> dict[str, Any]:
    version = services.insert(prepared)
    return {"name": version.dataset.name, "version": version.number, "rows": version.rows}


def prepare(user: User, version: Version, change: dict[str, Any], note: str) -> services.Prepared:
    """Apply a change to the rows of a version, check the result and put it on disk; Invalid where nothing changes."""
    before = pl.read_parquet(version.path)
    after = _CHANGES[change["did"]](before, change)
    if after.equals(before):
        raise Conflict(_("This changes no row, so no new version was made."))
    rows = Rows(after, Chosen("text", "label", "split" if "split" in after.columns else None))
    refuse_untrainable(rows)
    count = changed_rows(before, after)
    done = {key: value for key, value in change.items() if key != "rows"} | {"count": count}
    with override("en"):
        said = note or wording.changed(done)
    name, source = version.dataset.name, version.source
    return services.prepare(user, name, rows, source=source, note=said, parent=version, change=done)


def changed_rows(before: pl.DataFrame, after: pl.DataFrame) -> int:
    """Rows that are gone, new, or not as they were."""
    columns = ["row", "text", "label", *(["split"] if "split" in before.columns else [])]
    same = before.select(columns).join(after.select(columns), on=columns, how="semi", nulls_equal=True).height
    return max(before.height, after.height) - same


# --- fixes -------------------------------------------------------------------------------------------------------


def fix(frame: pl.DataFrame, change: dict[str, Any]) -> pl.DataFrame:
    """Repair what a finding found: `change["code"]`."""
    code = change["code"]
    found = next((f for f in findings.run(Rows(frame, Chosen("text", "label", None))).found if f.code == code), None)
    if found is None:
        raise Conflict(_("This finding is gone, so there is nothing to repair."))
    named = pl.col("row").is_in(found.rows)
    if clean := _CLEANED.get(code):
        cleaned = frame.filter(named).with_columns(pl.col("text").map_elements(clean, pl.String))
        mended = frame.update(cleaned.select("row", "text"), on="row")
        return mended.filter(pl.col("text").str.strip_chars() != "")
    if code == "label_conflict":
        return _majority(frame, named)
    if code == "split_leakage":
        named = named & (pl.col("split") == "train")
    return frame.filter(~named)


def _majority(frame: pl.DataFrame, named: pl.Expr) -> pl.DataFrame:
    """Of texts with several labels the rows with the commonest one stay; where two are as common, none."""
    doubtful = frame.filter(named).with_columns(same_text().alias("same"))
    votes = doubtful.group_by("same", "label").len()
    best = votes.filter(pl.col("len") == pl.col("len").max().over("same")).filter(pl.len().over("same") == 1)
    kept = doubtful.join(best, on=["same", "label"], how="semi")["row"]
    return frame.filter(~named | pl.col("row").is_in(kept.to_list()))


def without_markup(text: str) -> str:
    """Tags gone, entities as the characters that they stand for."""
    return re.sub(r"[ \t]{2,}", " ", html.unescape(_TAG.sub(" ", text))).strip()


def without_personal_data(text: str) -> str:
    """E-mail addresses, phone and identity numbers give way to what they are."""
    text = re.sub(findings.EMAIL, "[e-mail]", text)
    text = re.sub(findings.TAIWAN_ID, lambda found: "[id]" if findings.is_taiwan_id(found[0]) else found[0], text)
    return re.sub(findings.PHONE, "[phone]", text)


def _repaired(text: str) -> str:
    from ftfy import fix_encoding

    return fix_encoding(text)


_CLEANED: dict[str, Callable[[str], str]] = {
    "markup": without_markup,
    "control_characters": lambda text: re.sub(findings.CONTROL, "", text),
    "encoding": _repaired,
    "personal_data": without_personal_data,
}
_DROPPED = (
    *("too_short", "exact_duplicate", "near_duplicate", "label_conflict", "split_leakage", "rare_label"),
    "mixed_language",
)
FIXED = (*_CLEANED, *_DROPPED)


# --- by hand -----------------------------------------------------------------------------------------------------


def edit(frame: pl.DataFrame, change: dict[str, Any]) -> pl.DataFrame:
    """`change["rows"]`: {row: {"text", "label"}} to change, {row: None} to drop."""
    asked = {int(row): new for row, new in change["rows"].items()}
    unknown = set(asked) - set(frame["row"])
    if unknown:
        raise Invalid(_("There is no row %(row)s in this version.") % {"row": min(unknown)}, field="rows")
    frame = frame.filter(~pl.col("row").is_in([row for row, new in asked.items() if new is None]))
    changed = [{"row": row} | _cells(new) for row, new in asked.items() if new is not None]
    if not changed:
        return frame
    new_cells = pl.DataFrame(changed, schema={"row": frame.schema["row"], "text": pl.String, "label": pl.String})
    return frame.update(new_cells, on="row")


def _cells(new: dict[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, most in (("text", LONGEST_TEXT), ("label", LONGEST_LABEL)):
        value = new.get(name)
        if value is not None and not 0 < len(str(value).strip()) <= most:
            message = _("A row's %(name)s has 1 to %(most)s characters.") % {"name": name, "most": most}
            raise Invalid(message, field=f"rows.{name}")
        found[name] = None if value is None else str(value).replace("\x00", "\ufffd")
    return found


def rename(frame: pl.DataFrame, change: dict[str, Any]) -> pl.DataFrame:
    """The label `change["label"]` becomes `change["to"]`, which may be there already: then the two are merged."""
    return frame.with_columns(
        pl.when(pl.col("label") == change["label"]).then(pl.lit(change["to"])).otherwise(pl.col("label")).alias("label")
    )


def merge(frame: pl.DataFrame, change: dict[str, Any]) -> pl.DataFrame:
    """Add the rows of another version that are not here yet; they get numbers after the last one."""
    other = pl.read_parquet(Version.objects.get(pk=change["version_pk"]).path)
    fresh = other.unique(["text", "label"], keep="first", maintain_order=True).join(
        frame.select("text", "label"), on=["text", "label"], how="anti", maintain_order="left"
    )
    last = int(frame["row"].max() or 0)  # type: ignore[arg-type]  # max: of any type
    numbers = pl.int_range(last + 1, last + 1 + fresh.height, eager=True).cast(frame.schema["row"])
    return pl.concat([frame, fresh.with_columns(numbers.alias("row"))], how="diagonal").select(frame.columns)


_CHANGES: dict[str, Callable[[pl.DataFrame, dict[str, Any]], pl.DataFrame]] = {
    "fix": fix,
    "edit": edit,
    "rename": rename,
    "merge": merge,
    "relabel": edit,
}


def from_decisions(*, user: User, version: Version) -> Version | DataTask:
    """The next version from what people said to the suspects: labels corrected, rows dropped."""
    decided = Suspect.objects.filter(version=version, decision__isnull=False)
    rows = {s.row: ({"label": s.decision} if s.decision else None) for s in decided if s.decision != s.label}
    if not rows:
        raise Conflict(_("No label has been corrected yet, so there is nothing to make a new version of."))
    return make(user=user, version=version, change={"did": "relabel", "rows": rows})


def running(version: Version) -> DataTask | None:
    """A task that works on this version right now."""
    return version.tasks.filter(status__in=[Status.PENDING, Status.STARTED]).first()
