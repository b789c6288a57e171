"""From a file to labelled rows in splits: read, find columns, leave out what is empty, split, choose rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from engine.config import DataSection
from engine.data import splits
from engine.errors import ColumnMissing, DataUnreadable, OneLabel, TooFewRows

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "eval": "eval", "validation": "eval", "valid": "eval", "val": "eval", "dev": "eval",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    """Texts and the indexes of their labels, row by row; labels: (rows,) int64."""

    texts: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Rows:
    """All that is learnt from: label names in the order of their indexes, and the splits."""

    labels: list[str]
    train: Split
    eval: Split
    test: Split | None
    skipped: int
    rare: list[str]


def load_rows(path: Path, config: DataSection, seed: int) -> Rows:
    """Read, clean, split and choose rows. Raises DataUnreadable, ColumnMissing, OneLabel, TooFewRows."""
    frame = read_frame(path)
    usable = _usable(frame, config)
    labels = _label_names(usable)
    divided = _with_splits(usable, config.eval_fraction)
    train = _choose(divided.filter(pl.col("split") == "train"), config.train_samples, seed)
    held_out = _choose(divided.filter(pl.col("split") == "eval"), config.eval_samples, seed)
    test = divided.filter(pl.col("split") == "test")
    if len(train) < 2 or not len(held_out):
        raise TooFewRows(
            f"{len(train)} rows are left for training and {len(held_out)} for evaluation; at least 2 and 1 are needed. "
            "Texts that nearly repeat one another stay together. Add other rows, or a split column.",
            field="data.dataset_name",
        )
    _refuse_one_label(train["label"].unique().to_list())
    counts = {label: int((train["label"] == label).sum()) for label in labels}
    return Rows(
        labels=labels,
        train=_split(train, labels),
        eval=_split(held_out, labels),
        test=_split(test, labels) if len(test) else None,
        skipped=len(frame) - len(usable),
        rare=[label for label, count in counts.items() if count < 2],
    )


def read_frame(path: Path) -> pl.DataFrame:
    """Any data file as a frame; DataUnreadable says what its name promised."""
    if not path.exists():
        raise DataUnreadable(
            f"The data file {path.name} is not there. Choose the dataset again.", field="data.dataset_name"
        )
    readers = {
        ".parquet": pl.read_parquet,
        ".csv": lambda file: pl.read_csv(file, encoding="utf8-lossy", infer_schema_length=10_000),
        ".tsv": lambda file: pl.read_csv(file, separator="\t", encoding="utf8-lossy", infer_schema_length=10_000),
        ".jsonl": pl.read_ndjson,
        ".ndjson": pl.read_ndjson,
        ".json": pl.read_json,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataUnreadable(f"{path.name} is none of {', '.join(readers)}.", field="data.dataset_name")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataUnreadable(
            f"{path.name} can't be read as {path.suffix[1:].upper()}: {reason}", field="data.dataset_name"
        ) from error


def _usable(frame: pl.DataFrame, config: DataSection) -> pl.DataFrame:
    for field, name in (("data.text_column", config.text_column), ("data.label_column", config.label_column)):
        if name not in frame.columns:
            raise ColumnMissing(
                f"The data have no column {name}. Their columns are: {', '.join(frame.columns)}.", field=field
            )
    columns = [
        pl.col(config.text_column).cast(pl.String).alias("text"),
        pl.col(config.label_column).cast(pl.String).alias("label"),
    ]
    if config.split_column in frame.columns:
        columns.append(pl.col(config.split_column).cast(pl.String).str.to_lowercase().alias("split"))
    if splits.COLUMN in frame.columns and frame.schema[splits.COLUMN] == pl.UInt16:
        columns.append(pl.col(splits.COLUMN))
    named = frame.select(columns)
    filled = (pl.col("text").str.strip_chars() != "") & (pl.col("label").str.strip_chars() != "")
    return named.filter(filled.fill_null(False))


def _label_names(frame: pl.DataFrame) -> list[str]:
    names = frame["label"].unique().to_list()
    _refuse_one_label(names)
    whole = all(name.lstrip("-").isdigit() for name in names)
    return sorted(names, key=int) if whole else sorted(names)


def _refuse_one_label(names: list[str]) -> None:
    if len(names) < 2:
        found = f"only the label {names[0]}" if names else "no row with a text and a label"
        raise OneLabel(
            f"The training rows hold {found}; a classifier needs at least two labels. Check the label column.",
            field="data.label_column",
        )


def _with_splits(frame: pl.DataFrame, eval_fraction: float) -> pl.DataFrame:
    """The splits that the data name; where they name none to evaluate on, the rule of splits.py."""
    if "split" not in frame.columns:
        return _held_out(frame, eval_fraction)
    named = frame.with_columns(pl.col("split").replace_strict(SPLIT_NAMES, default=None)).filter(
        pl.col("split").is_not_null()
    )
    if (named["split"] == "eval").any():
        return named
    rest = named.filter(pl.col("split") == "test")
    train = _held_out(named.filter(pl.col("split") == "train"), eval_fraction)
    return pl.concat([train, rest.select("text", "label", "split")])


def _held_out(frame: pl.DataFrame, fraction: float) -> pl.DataFrame:
    if splits.COLUMN not in frame.columns or frame[splits.COLUMN].is_null().all():
        frame = frame.with_columns(splits.places(frame["text"], frame["label"]))
    side = pl.when(splits.evaluated(fraction)).then(pl.lit("eval")).otherwise(pl.lit("train"))
    return frame.filter(pl.col(splits.COLUMN).is_not_null()).select("text", "label", side.alias("split"))


def _choose(frame: pl.DataFrame, limit: int | None, seed: int) -> pl.DataFrame:
    if limit is None or limit >= len(frame):
        return frame
    kept = np.sort(np.random.default_rng([seed, 7]).permutation(len(frame))[:limit])
    return frame[kept]


def _split(frame: pl.DataFrame, labels: list[str]) -> Split:
    index = {label: number for number, label in enumerate(labels)}
    return Split(frame["text"].to_list(), np.array([index[label] for label in frame["label"]], dtype=np.int64))
