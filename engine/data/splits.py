"""Which rows are held out for evaluation: the one rule, for files that a run reads and for versions that are stored.

Each row has a place from 0 to 9,999; a run that holds out a share f evaluates on the rows whose place is below 10,000 f.
So a larger share holds out the same rows and more. Places go by the text's hash, within each label, so that every share
is stratified; near-duplicates have one place; rows that were there before keep theirs.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from engine.data.near_duplicates import groups, same_text, text_hash

PLACES = 10_000
COLUMN = "held_out"


def places(texts: pl.Series, labels: pl.Series, known: pl.DataFrame | None = None) -> pl.Series:
    """(rows,) UInt16. `known`: `text` and `held_out` of rows that were placed before.

    Null where a new row is a near-duplicate of rows with different places: it would straddle, so it is left out.
    """
    return placed(groups(texts).with_columns(labels.alias("label")), known)


def placed(rows: pl.DataFrame, known: pl.DataFrame | None = None) -> pl.Series:
    """The same for rows whose `same`, `group` (see near.groups) and `label` are known."""
    before = _before(rows, known)
    fresh = rows.join(before, on="group", how="anti")
    found = pl.concat([before, _ranked(fresh)])
    joined = rows.join(found, on="group", how="left", maintain_order="left")
    if known is None:
        return joined["place"].alias(COLUMN)
    own = joined.join(_of_texts(known), on="same", how="left", maintain_order="left", suffix="_own")
    return own.select(pl.coalesce("place_own", "place").alias(COLUMN))[COLUMN]


def _ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """Places of groups that nothing is known of: by their hash within the label of their first text."""
    sizes = rows.sort("same", "label").group_by("group").agg(pl.col("label").first(), pl.len().alias("rows"))
    before = pl.col("rows").cum_sum().over("label", order_by="group") - pl.col("rows")
    middle = (before + pl.col("rows") / 2) / pl.col("rows").sum().over("label")
    # The first group of a label is held out whatever the share, so that each label is evaluated where it can be.
    first = (before == 0) & (pl.len().over("label") > 1)
    place = pl.when(first).then(0.0).otherwise(middle * PLACES)
    return sizes.select("group", place.clip(0, PLACES - 1).floor().cast(pl.UInt16).alias("place"))


def _before(rows: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """Places of groups that hold a text which was placed before; null where such texts disagree."""
    if known is None:
        return pl.DataFrame(schema={"group": rows.schema["group"], "place": pl.UInt16})
    agreed = pl.when(pl.col("place").n_unique() == 1).then(pl.col("place").first())
    return rows.join(_of_texts(known), on="same").group_by("group").agg(agreed.alias("place"))


def _of_texts(known: pl.DataFrame) -> pl.DataFrame:
    """Each text's place, by the hash of what it says."""
    said = known.select(same_text())["text"]
    hashes = pl.Series("same", np.fromiter(map(text_hash, said), dtype=np.uint64, count=said.len()))
    return pl.DataFrame([hashes, known[COLUMN].alias("place")]).drop_nulls().unique("same", keep="first")


def evaluated(share: float) -> pl.Expr:
    """Whether a row is held out when that share is; null where the row is left out."""
    return pl.col(COLUMN) < round(share * PLACES)
