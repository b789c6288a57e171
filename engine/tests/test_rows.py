"""Rows that take part in no split are counted by their reason and reported: in the event, the log, metrics.json and errors."""

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Notice, Prepared
from engine.config import DataSection
from engine.data.rows import SKIP_REASONS, explain_skipped, load_rows
from engine.data.splits import PLACE_COLUMN, PLACES, SPLIT_NAMES
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
