"""Rows that take part in no split are counted by their reason and reported: in the event, the log, metrics.json and errors."""

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Notice, Prepared
from engine.config_sections import DataSection
from engine.data.labelled_rows import (
    SKIP_REASONS,
    SPLIT_NAMES,
    explain_skipped,
    find_similar_labels,
    sort_labels,
    were_sorted_alike,
)
from engine.data.rows import load_rows
from engine.data.splits import PLACE_COLUMN, PLACES
from engine.errors import DataUnreadableError, TooFewRowsError
from engine.tests.conftest import metrics_of, run, small

WORDS = ["river", "lamp", "carpet", "window", "violin", "mountain", "paper", "ocean", "garden", "silver"]


def sentence(number: int) -> str:
    """Ten words; two sentences of different numbers share few of them."""
    return " ".join(f"{word}{number * number + place}" for place, word in enumerate(WORDS))


def data(**columns: Any) -> pl.DataFrame:
    """40 rows with a text and one of two labels, and further columns."""
    return pl.DataFrame({"text": [sentence(i) for i in range(40)], "label": ["a", "b"] * 20} | columns)


def load(frame: pl.DataFrame, tmp_path, **settings):
    frame.write_parquet(tmp_path / "data.parquet")
    return load_rows(tmp_path / "data.parquet", DataSection(**settings), 7)


def rows_in(rows) -> int:
    return len(rows.train) + len(rows.eval) + len(rows.test or [])


def test_panic_of_polars_is_an_error_of_the_data(tmp_path):
    days = pa.array([2**31 - 1] * 40, pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"text": [sentence(i) for i in range(40)], "label": days}), tmp_path / "data.parquet")
    with pytest.raises(DataUnreadableError, match="out-of-range date"):
        load_rows(tmp_path / "data.parquet", DataSection(), 7)


def test_whole_data_skip_nothing(tmp_path):
    rows = load(data(), tmp_path)
    assert (rows.skipped, rows.skipped_by_reason, rows_in(rows)) == (0, {}, 40)


def test_each_reason_is_counted_once_per_row(tmp_path):
    split = ["train"] * 20 + ["dev"] * 10 + ["test"] * 4 + ["fold3", None, "", "unsupervised", "train", "train"]
    frame = data(split=split)
    frame[38, "text"] = "  "
    frame[38, "label"] = None  # has no text either: counted once
    frame[39, "label"] = ""
    rows = load(frame, tmp_path)
    assert rows.skipped_by_reason == {"no_text": 1, "no_label": 1, "unknown_split": 4}
    assert rows.skipped == 6 and rows_in(rows) == 34


def test_row_that_straddles_two_splits_is_counted(tmp_path):
    places = [0, 0, PLACES - 1, PLACES - 1] * 9 + [0, 0, PLACES - 1, None]
    rows = load(data(**{PLACE_COLUMN: pl.Series(places, dtype=pl.UInt16)}), tmp_path)
    assert rows.skipped_by_reason == {"between_splits": 1} and rows_in(rows) == 39


@pytest.mark.parametrize("name", [*SPLIT_NAMES, "Evaluation", " TESTING "])
def test_every_name_of_a_split_is_known(tmp_path, name):
    split = ["train"] * 20 + ["eval"] * 10 + [name] * 10
    rows = load(data(split=split), tmp_path)
    meant = SPLIT_NAMES[name.strip().lower()]
    sizes = {"train": len(rows.train), "eval": len(rows.eval), "test": len(rows.test or [])}
    assert sizes == {part: size + 10 * (part == meant) for part, size in {"train": 20, "eval": 10, "test": 0}.items()}


def test_error_about_too_few_rows_names_what_was_left_out(tmp_path):
    with pytest.raises(
        TooFewRowsError, match=r"40 with an unknown split name.*Known split names: train, training, eval"
    ):
        load(data(split=["first", "second"] * 20), tmp_path)


def test_reasons_read_as_a_phrase():
    assert explain_skipped({"no_text": 2, "unknown_split": 1}) == "2 without text, 1 with an unknown split name"
    assert explain_skipped(dict.fromkeys(SKIP_REASONS, 1)).count("1 ") == len(SKIP_REASONS)


@pytest.mark.slow
def test_skipped_rows_are_in_event_notice_log_and_metrics(bases, tmp_path):
    frame = data(split=["train"] * 28 + ["eval"] * 8 + ["fold"] * 3 + ["train"])
    frame[39, "text"] = ""
    frame.write_parquet(tmp_path / "data.parquet")
    config = small(model={"name": "tiny"}, lora={"layers_to_transform": None}, training={"max_steps": 1})
    events = run(config, tmp_path / "data.parquet", tmp_path / "run", base_models_dir=bases)
    prepared = next(event for event in events if isinstance(event, Prepared))
    expected = {"no_text": 1, "unknown_split": 3}
    assert (prepared.skipped_rows, prepared.skipped_by_reason) == (4, expected)
    notices = [event.message for event in events if isinstance(event, Notice) and event.code == "unknown_split"]
    assert len(notices) == 1 and notices[0].startswith("3 rows were skipped")
    assert metrics_of(events)["data"]["skipped_by_reason"] == expected
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["data"]
    assert (written["skipped_rows"], written["skipped_by_reason"]) == (4, expected)
    log = (tmp_path / "run" / "logs.txt").read_text()
    assert "4 rows skipped (1 without text, 3 with an unknown split name)" in log


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("text", [["a", "b"]] * 40),
        ("label", [["a", "x"]] * 40),
        ("text", [{"a": "b"}] * 40),
        ("split", [["train"]] * 40),
    ],
    ids=["texts", "labels", "structs", "splits"],
)
def test_column_of_lists_or_structs_is_refused_by_its_name(tmp_path, column, values):
    with pytest.raises(DataUnreadableError, match=f"column {column} holds lists or structs") as refused:
        load(data().with_columns(pl.Series(column, values)), tmp_path)
    assert refused.value.field == f"data.{column}_column"


def test_column_that_is_no_text_at_all_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(DataUnreadableError, match="cannot be read as text"):
        load(data().with_columns(pl.Series("text", [b"\xff\xfe"] * 40)), tmp_path)


def test_not_a_number_counts_as_missing(tmp_path):
    numbers = [float("nan") if i % 4 == 0 else i + 0.5 for i in range(40)]
    assert load(data().with_columns(pl.Series("text", numbers)), tmp_path).skipped_by_reason == {"no_text": 10}
    marks = [float("nan"), 1.0, 2.0, 2.0] * 10
    rows = load(data().with_columns(pl.Series("label", marks)), tmp_path)
    assert (rows.skipped_by_reason, rows.labels) == ({"no_label": 10}, ["1.0", "2.0"])


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "2", "10"],
        ["1.0", "2.0", "10.0"],
        ["-10", "-1", "1.5"],
        ["01", "1"],
        ["1", "²"],
        ["--1", "1"],
        ["10", "9", "NaN"],
        ["10", "9", "nine"],
    ],
)
def test_labels_are_in_the_order_of_their_numbers_only_where_all_are_numbers(labels):
    assert sort_labels(labels[::-1]) == labels


def test_labels_that_earlier_releases_sorted_otherwise_are_known():
    assert all(were_sorted_alike(labels) for labels in (["a", "b"], ["-1", "9", "10"], ["1.0", "2.0"]))
    assert not were_sorted_alike(["1.0", "2.0", "10.0"])


def test_split_names_may_be_surrounded_by_blanks_and_rows_without_one_are_counted(tmp_path):
    rows = load(data(split=["Train "] * 20 + [" EVAL"] * 10 + [None] * 10), tmp_path)
    assert (len(rows.train), len(rows.eval), rows.skipped_by_reason) == (20, 10, {"unknown_split": 10})


def test_split_column_without_any_name_is_as_if_it_were_not_there(tmp_path):
    rows = load(data(split=[None] * 40), tmp_path)
    assert rows_in(rows) == 40 and rows.skipped == 0


def test_error_about_too_few_rows_gives_the_true_reason(tmp_path):
    with pytest.raises(TooFewRowsError, match="Every row has a label of its own"):
        load(data().with_columns(pl.Series("label", [f"label {i}" for i in range(40)])), tmp_path)
    with pytest.raises(TooFewRowsError, match="The column split names the splits"):
        load(data(split=["eval"] * 40), tmp_path)
    with pytest.raises(TooFewRowsError, match="Near-duplicates stay together"):
        load(data().with_columns(pl.lit(sentence(1)).alias("text")), tmp_path)


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl", "data.json"])
def test_label_may_turn_from_number_to_word_in_the_last_row(tmp_path, name):
    file = tmp_path / name
    frame = pl.concat([data(), data()] * 150).with_columns(pl.lit(1).alias("label"))
    if name.startswith("data.json"):
        lines = [json.dumps(row) for row in [*frame.to_dicts(), {"text": "the end", "label": "word"}]]
        file.write_text("\n".join(lines) if name == "data.jsonl" else f"[{','.join(lines)}]")
    else:
        comma = "\t" if name == "data.tsv" else ","
        file.write_text(frame.write_csv(separator=comma) + f"the end{comma}word\n")
    assert load_rows(file, DataSection(eval_fraction=0.5), 7).labels == ["1", "word"]


def test_labels_that_differ_in_blanks_or_case_are_found():
    assert find_similar_labels(["No", "yes", "yes ", "YES", "other"]) == [["yes", "yes ", "YES"]]


def test_hash_of_rows_changes_with_any_text_label_or_split(tmp_path):
    split = ["train"] * 20 + ["eval"] * 10 + ["test"] * 10
    original = data(split=split)
    changed = [
        original.with_columns(text=original["text"].str.replace("river", "stream")),
        original.with_columns(label=original["label"].reverse()),
        original.with_columns(label=pl.lit("c") + original["label"]),
        original.with_columns(split=pl.Series(["train"] * 10 + ["eval"] * 20 + ["test"] * 10)),
        original.with_columns(split=pl.Series(["train"] * 20 + ["eval"] * 20)),
    ]
    digests = [load(frame, tmp_path).digest() for frame in (original, original.clone(), *changed)]
    assert digests[0] == digests[1] and len(set(digests)) == 6


def test_share_that_near_duplicates_hold_out_is_known(tmp_path):
    alike = [f"the soup was cold and the waiter was rude on day {number} of our stay" for number in range(60)]
    texts = [*alike, *map(sentence, range(60))]
    rows = load(pl.DataFrame({"text": texts, "label": [index % 2 for index in range(120)]}), tmp_path)
    assert rows.held_out_share == len(rows.eval) / (len(rows.eval) + len(rows.train))
    named = pl.DataFrame(
        {"text": texts, "label": [index % 2 for index in range(120)], "split": ["train", "train", "eval"] * 40}
    )
    assert load(named, tmp_path, split_column="split").held_out_share is None
