"""From a file to labelled rows in splits: read, find the columns, leave out what cannot be used, split, sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from engine.config_sections import DataSection
from engine.data import splits
from engine.data.label_columns import LABEL_COLUMNS, LabelColumn, as_json
from engine.data.labelled_rows import SPLIT_NAMES, Rows, Split, explain_skipped
from engine.errors import ColumnMissingError, DataUnreadableError, EngineError, SingleLabelError, TooFewRowsError
from engine.sentences import Sentence, gettext_noop, join_sentences
from engine.task_types import TaskType

READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    # Types are inferred from all rows: a label may turn from a number to a word in the last one.
    ".csv": lambda file: pl.read_csv(file, encoding="utf8-lossy", infer_schema_length=None),
    ".tsv": lambda file: pl.read_csv(file, separator="\t", encoding="utf8-lossy", infer_schema_length=None),
    ".jsonl": lambda file: pl.read_ndjson(file, infer_schema_length=None),
    ".ndjson": lambda file: pl.read_ndjson(file, infer_schema_length=None),
    ".json": lambda file: pl.read_json(file, infer_schema_length=None),
}


LISTS_AS_LABELS = ("multi_label_classification", "token_classification")


def load_rows(path: Path, config: DataSection, seed: int, task: TaskType = "sequence_classification") -> Rows:
    """Read, clean, split and sample the rows of a data file.

    seed: of the sample that data.train_samples and data.eval_samples take. task: what the label column holds.

    Raises DataUnreadableError, ColumnMissingError, SingleLabelError or TooFewRowsError.
    """
    label_column = LABEL_COLUMNS[task]
    skipped: dict[str, int] = {}
    try:
        frame = read_columns(path, config, task)
    except pl.exceptions.PanicException as error:  # a BaseException; polars raises it for a date out of range
        message = Sentence(
            gettext_noop("{name} has a value that cannot be read: {error}. Correct it, or choose another dataset."),
            name=path.name,
            error=error,
        )
        raise DataUnreadableError(message, field="data.dataset_name") from error
    for column in ("text", "text_pair"):
        if column in frame.columns:
            frame = _filter_usable(frame, pl.col(column).str.strip_chars() != "", "no_text", skipped)
    frame = _filter_usable(frame, pl.col("label").str.strip_chars() != "", "no_label", skipped)
    frame = _filter_usable(frame, label_column.usable(frame["label"]), label_column.skip_reason, skipped)

    labels = label_column.names(frame["label"])
    if frame.is_empty() or len(labels) < label_column.fewest_labels:
        raise _too_few_labels_error(labels, frame.is_empty(), task, skipped)

    names_eval_rows = "split" in frame.columns and (frame["split"] == "eval").any()
    every_label_once = task == "sequence_classification" and frame["label"].is_unique().all()
    frame = assign_splits(frame, config.eval_fraction, skipped, label_column)
    in_training, in_evaluation = frame.filter(split="train"), frame.filter(split="eval")
    train = sample_rows(in_training, config.train_samples, seed)
    held_out = sample_rows(in_evaluation, config.eval_samples, seed)
    test = frame.filter(split="test")
    if len(train) < 2 or not len(held_out):
        cause = Sentence(gettext_noop("Near-duplicates stay together in one split. Add other rows, or a split column."))
        if names_eval_rows:
            cause = Sentence(
                gettext_noop("The column {column} names the splits. Name more rows train there, or remove it."),
                column=config.split_column,
            )
        elif every_label_once:
            cause = Sentence(
                gettext_noop("Every row has a label of its own. Check the label column: a label needs several rows.")
            )
        raise too_few_rows_error(len(train), len(held_out), cause, skipped)
    train_labels = label_column.names(train["label"])
    if len(train_labels) < label_column.fewest_labels:
        raise _too_few_labels_error(train_labels, False, task, skipped)
    train_split = _to_split(train, labels, label_column)
    counts = label_column.counts(train_split.labels, labels)
    return Rows(
        labels=labels,
        train=train_split,
        eval=_to_split(held_out, labels, label_column),
        test=_to_split(test, labels, label_column) if len(test) else None,
        skipped_by_reason=skipped,
        rare=[label for label, count in zip(labels, counts.tolist(), strict=True) if count < 2],
        held_out_share=None if names_eval_rows else len(in_evaluation) / (len(in_training) + len(in_evaluation)),
    )


def read_columns(path: Path, config: DataSection, task: TaskType = "sequence_classification") -> pl.DataFrame:
    """Read a data file by the format that its name promises.

    Returns the columns `text`, `label`, for pairs `text_pair` and, where the data have them, `split` (null for an unknown
    name) and `held_out`.
    Raises DataUnreadableError or ColumnMissingError.
    """
    frame = read_frame(path)
    needed = {"text_column": config.text_column, "label_column": config.label_column}
    if config.text_pair_column is not None:
        needed["text_pair_column"] = config.text_pair_column
    for field, name in needed.items():
        if name not in frame.columns:
            message = Sentence(
                gettext_noop("The data have no column {name}. Their columns are: {columns}."),
                name=name,
                columns=", ".join(frame.columns),
            )
            raise ColumnMissingError(message, field=f"data.{field}")
    if task in LISTS_AS_LABELS and frame.schema[config.label_column].is_nested():
        frame = frame.with_columns(as_json(frame[config.label_column]))
    columns = [
        _as_text(frame, name, f"data.{field}").alias(field.removesuffix("_column")) for field, name in needed.items()
    ]
    # A column without any name of a split says nothing, as if it were not there.
    if config.split_column in frame.columns and not frame[config.split_column].is_null().all():
        split = _as_text(frame, config.split_column, "data.split_column")
        columns.append(splits.split_name(split).alias("split"))
    # Any other type is a column of the user's own that happens to have this name.
    if frame.schema.get(splits.PLACE_COLUMN) == pl.UInt16:
        columns.append(pl.col(splits.PLACE_COLUMN))
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        message = Sentence(
            gettext_noop(
                "{name} has values that cannot be read as text. Choose other columns, or turn them into text."
            ),
            name=path.name,
        )
        raise DataUnreadableError(message, field="data.dataset_name") from error


def read_frame(path: Path) -> pl.DataFrame:
    """Read a data file by the format that its name promises, with all of its columns. Raises DataUnreadableError."""
    if not path.exists():
        message = Sentence(gettext_noop("The data file {name} does not exist. Choose another dataset."), name=path.name)
        raise DataUnreadableError(message, field="data.dataset_name")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        message = Sentence(
            gettext_noop("{name} has an unknown format. Known formats: {formats}."),
            name=path.name,
            formats=", ".join(READERS),
        )
        raise DataUnreadableError(message, field="data.dataset_name")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = Sentence(
            gettext_noop("{name} cannot be read as {format}: {reason}"),
            name=path.name,
            format=path.suffix[1:].upper(),
            reason=reason,
        )
        raise DataUnreadableError(message, field="data.dataset_name") from error


def assign_splits(
    frame: pl.DataFrame, eval_fraction: float, skipped: dict[str, int], label_column: LabelColumn
) -> pl.DataFrame:
    """Return the rows with their `split`: as the data name it or, where they name no eval rows, by the rule of splits.py.

    The rule then divides the training rows; test rows stay what they are. Rows in no split are counted in `skipped`.
    """
    train = frame
    test = None
    if "split" in frame.columns:
        frame = _filter_usable(frame, pl.col("split").is_not_null(), "unknown_split", skipped)
        if (frame["split"] == "eval").any():
            return frame
        train = frame.filter(split="train").drop("split")
        test = frame.filter(split="test")
    has_places = splits.PLACE_COLUMN in train.columns
    # Earlier releases stored places that hold out no row of scores, as each score was a stratum of its own.
    if not has_places or not train.select(splits.is_held_out(eval_fraction).any()).item():
        texts = train["text"]
        if "text_pair" in train.columns:
            texts = train.select(pl.concat_str("text", "text_pair", separator="\n")).to_series()
        train = train.with_columns(splits.assign_places(texts, label_column.strata(train["label"])))
    train = _filter_usable(train, pl.col(splits.PLACE_COLUMN).is_not_null(), "between_splits", skipped)
    split = pl.when(splits.is_held_out(eval_fraction)).then(pl.lit("eval")).otherwise(pl.lit("train"))
    train = train.with_columns(split.alias("split"))
    columns = [name for name in ("text", "text_pair", "label", "split") if name in train.columns]
    return train.select(columns) if test is None else pl.concat([train.select(columns), test.select(columns)])


def _as_text(frame: pl.DataFrame, name: str, field: str) -> pl.Expr:
    """Return a column as text; a number that is NaN counts as missing. Raises DataUnreadableError for lists and structs."""
    kind = frame.schema[name]
    if kind.is_nested() or kind == pl.Object:
        message = Sentence(
            gettext_noop(
                "The column {name} holds lists or structs, but each row needs one value there. Choose another column, or "
                "turn its values into text."
            ),
            name=name,
        )
        raise DataUnreadableError(message, field=field)
    column = pl.col(name)
    return (column.fill_nan(None) if kind.is_float() else column).cast(pl.String)


def _filter_usable(
    frame: pl.DataFrame, usable: pl.Expr | pl.Series, reason: str, skipped: dict[str, int]
) -> pl.DataFrame:
    """Return the usable rows, and count the others in `skipped` under their reason. Null counts as not usable."""
    rows = frame.filter(usable.fill_null(False))
    if len(rows) < len(frame):
        skipped[reason] = skipped.get(reason, 0) + len(frame) - len(rows)
    return rows


def sample_rows(frame: pl.DataFrame, limit: int | None, seed: int) -> pl.DataFrame:
    """Return at most `limit` rows, in their order. The number 7 sets this random stream apart from the run's others."""
    if limit is None or limit >= len(frame):
        return frame
    return frame[np.sort(np.random.default_rng([seed, 7]).permutation(len(frame))[:limit])]


def _to_split(frame: pl.DataFrame, labels: list[str], label_column: LabelColumn) -> Split:
    text_pairs = frame["text_pair"].to_list() if "text_pair" in frame.columns else None
    return Split(frame["text"].to_list(), label_column.to_array(frame["label"], labels), text_pairs)


def too_few_rows_error(train_rows: int, eval_rows: int, cause: str, skipped: dict[str, int]) -> TooFewRowsError:
    message = Sentence(
        gettext_noop(
            "{train_rows} rows are left for training and {eval_rows} for evaluation; at least 2 and 1 are needed. "
            "{cause}"
        ),
        train_rows=train_rows,
        eval_rows=eval_rows,
        cause=cause,
    )
    sentences = [message, *left_out_sentences(skipped)]
    if "unknown_split" in skipped:
        sentences.append(Sentence(gettext_noop("Known split names: {names}."), names=", ".join(SPLIT_NAMES)))
    return TooFewRowsError(join_sentences(sentences), field="data.dataset_name")


def left_out_sentences(skipped: dict[str, int]) -> list[Sentence]:
    """Return a sentence on the rows that were left out, by reason; nothing if there are none."""
    return [Sentence(gettext_noop("Rows left out: {reasons}."), reasons=explain_skipped(skipped))] if skipped else []


def _too_few_labels_error(labels: list[str], no_rows: bool, task: TaskType, skipped: dict[str, int]) -> EngineError:
    """Return the error for rows that hold fewer labels than the task type needs."""
    content = (
        Sentence(gettext_noop("only the label {label}"), label=labels[0])
        if labels
        else Sentence(gettext_noop("no label"))
    )
    if no_rows:
        content = Sentence(gettext_noop("no row with a text and a label"))
    remedy = Sentence(gettext_noop("a classifier needs at least two labels"))
    if task == "token_classification":
        remedy = Sentence(gettext_noop("entities need at least one label"))
    elif task == "regression":
        remedy = Sentence(gettext_noop("a regression needs a number in each row"))
    message = Sentence(
        gettext_noop("The training rows hold {content}; {remedy}. Check the label column."),
        content=content,
        remedy=remedy,
    )
    return SingleLabelError(join_sentences([message, *left_out_sentences(skipped)]), field="data.label_column")
