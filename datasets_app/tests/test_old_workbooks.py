"""Workbooks of older Excel and of LibreOffice are read as .xlsx is."""

import pytest

from datasets_app.reading.options import FileOptions
from datasets_app.services import read_rows
from datasets_app.tests.old_workbooks import ods, xls
from datasets_app.tests.test_real_files import read
from web.errors import InvalidError

REVIEWS = [["Review", "Liked"], ["菜很好吃, really", 1], ["Cold & <late>", 0], ['"Never" again', 0], ["Warm bread", 1]]
EXPECTED = [("菜很好吃, really", "1"), ("Cold & <late>", "0"), ('"Never" again', "0"), ("Warm bread", "1")]


@pytest.mark.parametrize("made_by", [xls, ods])
@pytest.mark.parametrize("suffix", [True, False])
def test_old_workbooks_are_read(file, made_by, suffix):
    content = made_by(Reviews=REVIEWS, Others=[["text", "label"], ["something", "good"], ["other", "bad"]])
    table, rows = read(file(content), f"a.{made_by.__name__}" if suffix else "a")
    assert rows.frame.select("text", "label").rows() == EXPECTED
    assert (table.kind, table.sheet, table.sheets) == ("workbook", "Reviews", ["Reviews", "Others"])
    assert "other_sheets" in {note["code"] for note in rows.notes}


@pytest.mark.parametrize("made_by", [xls, ods])
def test_another_sheet_can_be_chosen(file, made_by):
    content = made_by(Notes=[["about"]], Reviews=REVIEWS)
    _table, rows = read(file(content), "a", FileOptions(sheet="Reviews"))
    assert rows.frame.select("text", "label").rows() == EXPECTED


@pytest.mark.parametrize("made_by", [xls, ods])
def test_damaged_workbook_is_refused_in_words(file, made_by):
    content = made_by(Reviews=REVIEWS)
    damaged = content[:1100] if made_by is xls else content.replace(b"</office", b"<<office")
    with pytest.raises(InvalidError, match=r"cannot be read|damaged"):
        read_rows(file(damaged), "a", {}, limit=1 << 20)  # in the process that may crash
