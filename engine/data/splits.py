"""Which rows are held out for evaluation: one rule, for files that a run reads and for versions that are stored.

Each row has a place from 0 to 9,999; a run that holds out a share f evaluates on the rows whose place is below 10,000 f.
So a larger share holds out the same rows and more. Places go by the text's hash, within each label, so that every share
is stratified; near-duplicates have one place; rows that were placed in an earlier version keep theirs.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from engine.data.near_duplicates import group_near_duplicates, hash_text, normalised_text

PLACES = 10_000
PLACE_COLUMN = "held_out"

# Names of splits, in lower case, as people and the model hub write them.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "evaluation": "eval",
    "validation": "eval",
    "valid": "eval",
    "val": "eval",
    "dev": "eval",
    "test": "test",
    "testing": "test",
}


def split_name(column: pl.Expr) -> pl.Expr:
    """Return train, eval or test for each name of a split; null for a name that is not known."""
    name = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return name.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def assign_places(texts: pl.Series, labels: pl.Series, known: pl.DataFrame | None = None) -> pl.Series:
    """Return the place of each row: (rows,) UInt16.

    `known` has the columns `text` and `held_out` of rows that were placed before; such a text keeps its place.

    Null where a new row is a near-duplicate of rows with different places: on either side it would leak to the other.
    """
    return assign_places_to_groups(group_near_duplicates(texts).with_columns(labels.alias("label")), known)


def assign_places_to_groups(rows: pl.DataFrame, known: pl.DataFrame | None = None) -> pl.Series:
    """Do the same as `assign_places` for rows that have `label`, and `same` and `group` of `group_near_duplicates`."""
    group_places = _earlier_group_places(rows, known)
    new_groups = rows.join(group_places, on="group", how="anti")
    group_places = pl.concat([group_places, _new_group_places(new_groups)])
    joined = rows.join(group_places, on="group", how="left", maintain_order="left")
    if known is None:
        return joined["place"].alias(PLACE_COLUMN)
    with_own = joined.join(_text_places(known), on="same", how="left", maintain_order="left", suffix="_own")
    return with_own.select(pl.coalesce("place_own", "place").alias(PLACE_COLUMN))[PLACE_COLUMN]


def is_held_out(share: float) -> pl.Expr:
    """Return whether a row is held out for evaluation at that share; null where the row is left out of all splits."""
    return pl.col(PLACE_COLUMN) < round(share * PLACES)


def _new_group_places(rows: pl.DataFrame) -> pl.DataFrame:
    """Place groups that no earlier row is in: in the order of their hashes within the label of their first text."""
    groups_of_label = rows.sort("same", "label").group_by("group").agg(pl.col("label").first(), pl.len().alias("rows"))
    rows_before = pl.col("rows").cum_sum().over("label", order_by="group") - pl.col("rows")
    middle = (rows_before + pl.col("rows") / 2) / pl.col("rows").sum().over("label")
    # The first group of a label is held out whatever the share, so that each label is evaluated where it can be.
    is_first = (rows_before == 0) & (pl.len().over("label") > 1)
    place = pl.when(is_first).then(0.0).otherwise(middle * PLACES)
    return groups_of_label.select("group", place.clip(0, PLACES - 1).floor().cast(pl.UInt16).alias("place"))


def _earlier_group_places(rows: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """Place groups that hold a text which was placed before; null where such texts disagree."""
    if known is None:
        return pl.DataFrame(schema={"group": rows.schema["group"], "place": pl.UInt16})
    agreed_place = pl.when(pl.col("place").n_unique() == 1).then(pl.col("place").first())
    return rows.join(_text_places(known), on="same").group_by("group").agg(agreed_place.alias("place"))


def _text_places(known: pl.DataFrame) -> pl.DataFrame:
    """Return `same`, the hash of each normalised text, and its `place`."""
    texts = known.select(normalised_text())["text"]
    hashes = pl.Series("same", np.fromiter(map(hash_text, texts), dtype=np.uint64, count=texts.len()))
    return pl.DataFrame([hashes, known[PLACE_COLUMN].alias("place")]).drop_nulls().unique("same", keep="first")
