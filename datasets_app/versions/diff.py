"""What differs between two versions, by row and by label."""

from typing import Any

import polars as pl

from datasets_app.models import Version

EXAMPLES = 50


def compare_versions(old: Version, new: Version) -> dict[str, Any]:
    """Compare two versions: rows relabelled, rewritten, added and dropped with examples, label counts, and label moves.

    Rows are matched by text. If one version was made from the other by changes, they are also matched by row number, which
    finds rows whose text was rewritten.
    """
    before = pl.read_parquet(old.path)
    after = pl.read_parquet(new.path)
    if _is_made_from(new, old) or _is_made_from(old, new):
        rewritten = before.join(after, on="row", suffix="_new").filter(pl.col("text") != pl.col("text_new")).sort("row")
    else:
        rewritten = before.clear()
    is_rewritten = pl.col("row").is_in(rewritten["row"].implode())
    before = _number_repeats(before.filter(~is_rewritten))
    after = _number_repeats(after.filter(~is_rewritten))
    same_text = before.join(after, on=["text", "occurrence"], suffix="_new")
    relabelled = same_text.filter(pl.col("label") != pl.col("label_new")).sort("row")
    dropped = before.join(same_text, on=["text", "occurrence"], how="anti").sort("row")
    added = after.join(same_text, on=["text", "occurrence"], how="anti").sort("row")
    moves = relabelled.group_by("label", "label_new").len("rows").sort("rows", "label", descending=[True, False])
    labels = []
    for label in {**old.labels, **new.labels}:
        rows_before = old.labels.get(label, 0)
        rows_after = new.labels.get(label, 0)
        labels.append({"label": label, "old": rows_before, "new": rows_after, "difference": rows_after - rows_before})
    return {
        "changes": [
            _describe_change("relabelled", relabelled),
            _describe_change("rewritten", rewritten),
            _describe_change("added", added),
            _describe_change("dropped", dropped),
        ],
        "moves": moves.to_dicts(),
        "labels": sorted(labels, key=lambda row: -max(row["old"], row["new"])),
        "unchanged": same_text.height - relabelled.height,
    }


def _is_made_from(child: Version, ancestor: Version) -> bool:
    """Return whether changes alone lead from the ancestor to the child, so that row numbers mean the same rows."""
    version: Version | None = child
    while version and version.pk != ancestor.pk:
        version = version.parent if version.change else None
    return version is not None


def steps_between(old: Version, new: Version) -> list[Version]:
    """Return the versions that lead from an older one to a newer one, without the older; empty if none do."""
    steps: list[Version] = []
    version: Version | None = new
    while version and version.pk != old.pk:
        steps.insert(0, version)
        version = version.parent
    return steps if version else []


def find_removals(steps: list[Version], rows: list[int]) -> dict[int, Version]:
    """Return for each of some rows the step that removed it. Empty if a step is a new file: its rows have new numbers."""
    removed: dict[int, Version] = {}
    if not all(step.change for step in steps):
        return removed
    for step in steps:
        left = [row for row in rows if row not in removed]
        is_left = pl.col("row").is_in(left)
        present = pl.scan_parquet(step.path).select("row").filter(is_left).collect()["row"].to_list() if left else []
        removed |= {row: step for row in left if row not in present}
    return removed


def _number_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `occurrence`: the index of a row among the rows with the same text, so that repeated texts match one to one."""
    return frame.sort("row").with_columns(pl.int_range(pl.len()).over("text").alias("occurrence"))


def _describe_change(kind: str, rows: pl.DataFrame) -> dict[str, Any]:
    examples = rows.head(EXAMPLES).select(pl.col("^(row|text|label|text_new|label_new)$"))
    return {"kind": kind, "count": rows.height, "examples": examples.to_dicts()}
