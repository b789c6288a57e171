"""The columns of a table: which one is the split, and what its names mean."""

import polars as pl
import pytest

from datasets_app.reading import columns
from datasets_app.reading.rows import select_rows
from datasets_app.reading.table import ROW, Table
from engine.data.labelled_rows import SPLIT_NAMES


@pytest.mark.parametrize("name", [*SPLIT_NAMES, "Evaluation", " TESTING "])
def test_split_names_are_those_that_the_engine_knows(name):
    split = ["train", name, "train", name]
    frame = pl.DataFrame({"text": list("abcd"), "label": ["x", "x", "y", "y"], "split": split})
    table = Table(frame.with_row_index(ROW, offset=1), "utf-8")
    chosen = columns.choose_columns(table)
    assert chosen.split == "split"
    meant = SPLIT_NAMES[name.strip().lower()]
    assert select_rows(table, chosen).frame["split"].to_list() == ["train", meant, "train", meant]
