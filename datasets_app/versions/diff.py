"""What differs between two versions, by row and by label."""

from typing import Any

import polars as pl

from datasets_app.models import Version

EXAMPLES = 50


def between(old: Version, new: Version) -> dict[str, Any]:
    """Counts and examples of rows added, dropped, relabelled and rewritten, labels side by side, and moves of labels.

    A row is the same one where the text is; in versions that one was made of the other, also where its number is.
    """
    before, after = pl.read_parquet(old.path), pl.read_parquet(new.path)
    rewritten = _rewritten(before, after) if _related(old, new) else before.clear()
    rest_before = before.filter(~pl.col("row").is_in(rewritten["row"].implode()))
    rest_after = after.filter(~pl.col("row").is_in(rewritten["row"].implode()))
    same = _numbered(rest_before).join(_numbered(rest_after), on=["text", "turn"], suffix="_new")
    relabelled = same.filter(pl.col("label") != pl.col("label_new")).sort("row")
    dropped = _numbered(rest_before).join(same, on=["text", "turn"], how="anti").sort("row")
    added = _numbered(rest_after).join(same, on=["text", "turn"], how="anti").sort("row")
    moves = relabelled.group_by("label", "label_new").len("rows").sort("rows", "label", descending=[True, False])
    return {
        "changes": [
            _change(kind, rows)
            for kind, rows in (
                ("relabelled", relabelled),
                ("rewritten", rewritten),
                ("added", added),
                ("dropped", dropped),
            )
        ],
        "moves": moves.to_dicts(),
        "labels": _labels(old, new),
        "unchanged": same.height - relabelled.height,
    }


def _related(old: Version, new: Version) -> bool:
    """Whether one was made of the other by changes, so that row numbers mean the same rows."""
    return any(_made_of(a, b) for a, b in ((old, new), (new, old)))


def _made_of(child: Version, ancestor: Version) -> bool:
    found: Version | None = child
    while found and found.pk != ancestor.pk:
        found = found.parent if found.change else None
    return found is not None


def _rewritten(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Rows of both whose text differs."""
    both = before.join(after, on="row", suffix="_new")
    return both.filter(pl.col("text") != pl.col("text_new")).sort("row")


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """With `turn`: the how manieth row of its text it is, so that repeated texts are matched one by one."""
    return frame.sort("row").with_columns(pl.int_range(pl.len()).over("text").alias("turn"))


def _change(kind: str, rows: pl.DataFrame) -> dict[str, Any]:
    shown = rows.head(EXAMPLES).select(pl.col("^(row|text|label|text_new|label_new)$"))
    return {"kind": kind, "count": rows.height, "examples": shown.to_dicts()}


def _labels(old: Version, new: Version) -> list[dict[str, Any]]:
    names = sorted(
        {**old.labels, **new.labels}, key=lambda label: -max(old.labels.get(label, 0), new.labels.get(label, 0))
    )
    pairs = [(name, old.labels.get(name, 0), new.labels.get(name, 0)) for name in names]
    return [{"label": name, "old": a, "new": b, "difference": b - a} for name, a, b in pairs]
