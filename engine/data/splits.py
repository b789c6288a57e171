"""Which rows are held out for evaluation: one rule, for files that a run reads and for versions that are stored.

Each row has a place from 0 to 9,999; a run that holds out a share f evaluates on the rows whose place is below 10,000 f.
So a larger share holds out the same rows and more. Places go by the text's hash, within each label, so that every share
is stratified; near-duplicates have one place; rows that were placed in an earlier version keep theirs.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from engine.data.labelled_rows import SPLIT_NAMES
from engine.data.near_duplicates import group_near_duplicates, hash_text, normalised_text

PLACES = 10_000
PLACE_COLUMN = "held_out"


def split_name(column: pl.Expr) -> pl.Expr:
    """Return train, eval or test for each name of a split, in any case; null for a name that is not in SPLIT_NAMES."""
    name = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return name.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def assign_places(texts: pl.Series, labels: pl.Series, earlier: pl.DataFrame | None = None) -> pl.Series:
    """Return the place of each row: (rows,) UInt16.

    `earlier` has the columns `text` and `held_out` of rows that were placed before; such a text keeps its place.

    Null where a new row is a near-duplicate of rows with different places: on either side it would leak to the other.
    """
    return assign_places_to_groups(group_near_duplicates(texts).with_columns(labels.alias("label")), earlier)


def assign_places_to_groups(rows: pl.DataFrame, earlier: pl.DataFrame | None = None) -> pl.Series:
    """Do the same as `assign_places` for rows that have `label`, and `same` and `group` of `group_near_duplicates`."""
    # Groups with a text that was placed before take its place; null where such texts disagree.
    group_places = pl.DataFrame(schema={"group": rows.schema["group"], "place": pl.UInt16})
    text_places = None
    if earlier is not None:
        normalised = earlier.select(normalised_text())["text"]
        hashes = pl.Series("same", np.fromiter(map(hash_text, normalised), dtype=np.uint64, count=normalised.len()))
        text_places = (
            pl.DataFrame([hashes, earlier[PLACE_COLUMN].alias("place")]).drop_nulls().unique("same", keep="first")
        )
        agreed_place = pl.when(pl.col("place").n_unique() == 1).then(pl.col("place").first())
        group_places = rows.join(text_places, on="same").group_by("group").agg(agreed_place.alias("place"))

    # New groups take places in the order of their hashes, within the label of their first text.
    new_rows = rows.join(group_places, on="group", how="anti").sort("same", "label")
    new_groups = new_rows.group_by("group").agg(pl.col("label").first(), pl.len().alias("rows"))
    rows_before = pl.col("rows").cum_sum().over("label", order_by="group") - pl.col("rows")
    middle = (rows_before + pl.col("rows") / 2) / pl.col("rows").sum().over("label")
    # The first group of a label is held out whatever the share, so that each label is evaluated where it can be.
    is_first = (rows_before == 0) & (pl.len().over("label") > 1)
    place = pl.when(is_first).then(0.0).otherwise(middle * PLACES)
    new_places = new_groups.select("group", place.clip(0, PLACES - 1).floor().cast(pl.UInt16).alias("place"))

    group_places = pl.concat([group_places, new_places])
    placed = rows.join(group_places, on="group", how="left", maintain_order="left")
    if text_places is None:
        return placed["place"].alias(PLACE_COLUMN)
    # A text that was placed before keeps its own place, also where its group's texts disagree.
    placed = placed.join(text_places, on="same", how="left", maintain_order="left", suffix="_own")
    return placed.select(pl.coalesce("place_own", "place").alias(PLACE_COLUMN))[PLACE_COLUMN]


def is_held_out(share: float) -> pl.Expr:
    """Return whether a row is held out for evaluation at that share, from 0 to 1, by its column `held_out`.

    Null where the row is left out of all splits.
    """
    return pl.col(PLACE_COLUMN) < round(share * PLACES)
