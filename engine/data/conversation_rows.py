"""From a file to conversations in splits: find the columns, leave out what cannot be used, split, sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from engine.config_sections import DataSection
from engine.data import splits
from engine.data.conversations import (
    Conversation,
    UnusableRowError,
    from_prompt,
    from_text,
    question_of,
    read_stored,
    to_json,
)
from engine.data.documents import split_documents
from engine.data.label_columns import LABEL_COLUMNS
from engine.data.labelled_rows import Rows, Split
from engine.data.preference_rows import preference_reader
from engine.data.preferences import Preference
from engine.data.rows import assign_splits, read_frame, sample_rows, too_few_rows_error
from engine.errors import ColumnMissingError, DataUnreadableError
from engine.sentences import Sentence, gettext_noop
from engine.task_types import TaskType

LINES = (".jsonl", ".ndjson")
PLAIN_TEXTS = (".txt", ".md")
# Columns that are read where the configured ones are missing, in this order.
USUAL_COLUMNS = ("messages", "conversations", "prompt", "text")
Row = dict[str, Any]


def load_chat_rows(path: Path, config: DataSection, seed: int, task: TaskType = "causal_lm") -> Rows:
    """Read, clean, split and sample the conversations or preferences of a data file; the texts of the rows are their JSON.

    seed: of the sample that data.train_samples and data.eval_samples take.
    Raises DataUnreadableError, ColumnMissingError or TooFewRowsError.
    """
    skipped: dict[str, int] = {}
    records = read_records(path)
    read = preference_reader(records, config) if task == "preference" else _reader(records, config)
    frame = _read_frame(records, read, config.split_column, skipped)
    names_eval_rows = "split" in frame.columns and (frame["split"] == "eval").any()
    if not names_eval_rows and len(frame):
        # Places go by what is asked: conversations share long instructions, and are no duplicates for that.
        frame = frame.with_columns(splits.assign_places(frame["question"], frame["label"]))
    frame = assign_splits(frame, config.eval_fraction, skipped, LABEL_COLUMNS["causal_lm"])
    train = sample_rows(frame.filter(split="train"), config.train_samples, seed)
    held_out = sample_rows(frame.filter(split="eval"), config.eval_samples, seed)
    test = frame.filter(split="test")
    if len(train) < 2 or not len(held_out):
        raise too_few_rows_error(len(train), len(held_out), Sentence(gettext_noop("Add conversations.")), skipped)
    return Rows(
        labels=[],
        train=_to_split(train),
        eval=_to_split(held_out),
        test=_to_split(test) if len(test) else None,
        skipped_by_reason=skipped,
    )


def _to_split(frame: pl.DataFrame) -> Split:
    return Split(frame["text"].to_list(), LABEL_COLUMNS["causal_lm"].to_array(frame["label"], []))


def read_records(path: Path) -> list[Row]:
    """Return the rows of a data file by its columns. Raises DataUnreadableError."""
    if path.suffix.lower() in PLAIN_TEXTS and path.exists():
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        return [{"text": document} for document in split_documents(text)]
    if path.suffix.lower() not in LINES or not path.exists():
        return read_frame(path).to_dicts()
    # Not by polars, which gives all messages of a file the same fields, and refuses content of two types.
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            message = Sentence(
                gettext_noop("{name} cannot be read as JSONL: line {number} holds no JSON object."),
                name=path.name,
                number=number,
            )
            raise DataUnreadableError(message, field="data.dataset_name")
        records.append(record)
    return records


def _read_frame(
    records: list[Row], read: Callable[[Row], Conversation | Preference], split_column: str, skipped: dict[str, int]
) -> pl.DataFrame:
    """Return the usable rows: columns text, question, label and, if any row has one, split; count the others in `skipped`."""
    rows: list[Row] = []
    for record in records:
        try:
            content = read(record)
        except UnusableRowError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
            continue
        split = record.get(split_column)
        name = None if split is None else str(split)
        question = question_of(content["prompt"] if isinstance(content, dict) else content)
        rows.append({"text": to_json(content), "question": question, "label": "", "split": name})
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("text", "question", "label", "split"), pl.String))
    if frame["split"].is_null().all():
        return frame.drop("split")
    return frame.with_columns(splits.split_name(pl.col("split")).alias("split"))


def _reader(records: list[Row], config: DataSection) -> Callable[[Row], Conversation]:
    """Return the function that reads a row's conversation, by the columns of the data and what the first values are."""
    columns = {name: None for record in records for name in record}
    name = next((name for name in (config.text_column, *USUAL_COLUMNS) if name in columns), None)
    if name is None:
        message = Sentence(
            gettext_noop("The data have no column {column}. Their columns are: {columns}."),
            column=config.text_column,
            columns=", ".join(columns),
        )
        raise ColumnMissingError(message, field="data.text_column")
    first = next((record[name] for record in records if record.get(name)), "")
    if not isinstance(first, str) or first.lstrip().startswith("["):
        return lambda record: read_stored(record.get(name))
    if config.label_column in columns:
        return lambda record: from_prompt(_text(record, name), _text(record, config.label_column))
    return lambda record: from_text(_text(record, name))


def _text(record: Row, name: str) -> str:
    value = record.get(name)
    return "" if value is None else str(value)
