"""Files of the kinds that people have are read as a person expects, or refused in words that lead on."""

import pytest

from datasets_app.reading import columns, readers
from datasets_app.reading.options import ColumnOptions, FileOptions
from datasets_app.reading.rows import refuse_untrainable, select_rows
from datasets_app.reading_descriptions import describe_note, describe_reason
from datasets_app.services import read_rows
from datasets_app.tests.real_files import (
    PLAIN,
    QUOTED,
    REAL_FILES,
    TEXTS,
    RealFile,
    lines,
    pairs,
    records,
    workbook,
)
from datasets_app.tests.refused_files import REFUSED
from web.errors import InvalidError

LIMIT = 20 << 20


def read(path, name, file_options=None, **column_options):
    table = readers.read(path, name, limit=LIMIT, options=file_options or FileOptions())
    choice = columns.choose_columns(table, ColumnOptions(**column_options))
    rows = select_rows(table, choice)
    rows.notes = [*table.notes, *rows.notes, *columns.notes_on_choice(table, choice)]
    refuse_untrainable(rows)
    return table, rows


@pytest.mark.parametrize("kind_of_file", REAL_FILES)
def test_file_is_read_as_a_person_expects(file, kind_of_file):
    expected: RealFile = REAL_FILES[kind_of_file]
    _table, rows = read(file(expected.content), expected.name)
    assert rows.frame.select("text", "label").rows() == expected.rows
    assert rows.kind == expected.kind
    assert {note["code"] for note in rows.notes} == expected.notes
    assert rows.left_out == expected.left_out
    if expected.splits:
        assert dict(rows.frame["split"].value_counts().iter_rows()) == expected.splits


@pytest.mark.parametrize("kind_of_file", REAL_FILES)
def test_lines_and_rows_add_up(file, kind_of_file):
    expected: RealFile = REAL_FILES[kind_of_file]
    path = file(expected.content)
    table, rows = read(path, expected.name)
    assert rows.frame.height + sum(rows.left_out.values()) == rows.rows_read
    if table.lines and expected.name.endswith((".csv", ".tsv", ".txt", "sms")):
        with open(path, encoding=table.encoding, errors="replace", newline="") as text:
            assert sum(table.lines.values()) == sum(1 for _line in text)


@pytest.mark.parametrize("kind_of_file", REAL_FILES)
def test_each_note_is_a_sentence(file, kind_of_file):
    expected: RealFile = REAL_FILES[kind_of_file]
    _table, rows = read(file(expected.content), expected.name)
    for note in rows.notes:
        sentence = describe_note(note)
        assert sentence.endswith(".") and "%" not in sentence and sentence != note["code"]
    assert all(describe_reason(reason) != reason for reason in rows.left_out)


@pytest.mark.parametrize("kind_of_file", REFUSED)
def test_file_is_refused_in_words_that_lead_on(file, kind_of_file):
    content, words = REFUSED[kind_of_file]
    with pytest.raises(InvalidError) as refusal:
        read_rows(file(content), "a.json" if content[:1] in b"[{" else "a.csv", {}, limit=LIMIT)
    assert words in str(refusal.value.message) and "othing was stored" in str(refusal.value.message)


def test_person_corrects_every_guess(file):
    path = file(lines(["Report of today", "x^y", *(f"%{t}%^{x}" for t, x in pairs())]))
    options = FileOptions(delimiter="^", quote="%", header=False, skip_lines=2)
    table, rows = read(path, "a.txt", options, text=("1",), label=("2",))
    assert rows.frame.select("text", "label").rows() == pairs()
    assert table.header is False and table.skipped_lines == 2


def test_marks_are_kept_where_a_person_says_that_they_quote_nothing(file):
    path = file(lines(["text\tlabel", *(f'"{t}"\t{x}' for t, x in pairs())]))
    _table, rows = read(path, "a.tsv", FileOptions(quote=""))
    assert rows.frame["text"].to_list() == [f'"{text}"' for text in TEXTS[:8]]


def test_several_text_columns_are_joined_in_their_order(file):
    path = file(lines(["label,title,body", *(f"{x},Visit {i},{t}" for i, (t, x) in enumerate(pairs(8, PLAIN)))]))
    _table, rows = read(path, "a.csv", text=("title", "body"))
    assert rows.frame["text"].to_list() == [f"Visit {i}\n{text}" for i, text in enumerate(PLAIN[:8])]


def test_second_text_is_read_beside_the_first(file):
    path = file(lines(["premise,hypothesis,label", *(f"{t},{t} too,{x}" for t, x in pairs(8, PLAIN))]))
    _table, rows = read(path, "a.csv")
    assert rows.frame["text_pair"].to_list() == [f"{text} too" for text in PLAIN[:8]]


def test_values_of_a_split_column_mean_what_a_person_says(file):
    path = file(lines(["text,label,fold", *(f"{line},{'ABC'[i % 3]}" for i, line in enumerate(QUOTED))]))
    with pytest.raises(InvalidError, match="values that are no split: “a”, “b”, “c”"):
        read(path, "a.csv", split="fold")
    _table, rows = read(path, "a.csv", split="fold", split_values={"A": "train", "B": "eval", "C": ""})
    assert dict(rows.frame["split"].value_counts().iter_rows()) == {"train": 3, "eval": 3}
    assert rows.left_out == {"other_split": 2}


def test_rows_with_several_labels_are_left_out_where_a_person_wants_one(file):
    expected = REAL_FILES["columns of yes and no"]
    _table, rows = read(file(expected.content), expected.name, kind="labels")
    assert rows.kind == "labels" and rows.left_out["several_labels"] > 0
    assert rows.frame.height + sum(rows.left_out.values()) == 12


def test_text_of_invisible_characters_is_no_text(file):
    path = file("text,label\n\u200b\ufeff\u00a0,good\nseen,bad\nheard,good\n")
    _table, rows = read(path, "a.csv")
    assert rows.frame["text"].to_list() == ["seen", "heard"] and rows.left_out == {"no_text": 1}


def test_careful_and_fast_reader_read_the_same(file, monkeypatch):
    from datasets_app.reading import delimited

    rows = [(f'{text} "quoted" {i}', label) for i, (text, label) in enumerate(pairs(40))]
    quoted = [f'"{text.replace(chr(34), chr(34) * 2)}",{label}' for text, label in rows]
    path = file(lines(["text,label", *quoted]))
    fast = readers.read(path, "a.csv", limit=LIMIT)
    monkeypatch.setattr(delimited, "is_regular", lambda *_: False)
    careful = readers.read(path, "a.csv", limit=LIMIT)
    assert fast.frame.equals(careful.frame) and fast.lines == careful.lines


def test_fields_that_come_late_in_json_lines_are_found(file):
    early = [{"id": number} for number in range(2500)]
    late = [{"id": 0, "text": text, "label": label} for text, label in pairs()]
    table, rows = read_rows(file(records([*early, *late])), "a.jsonl", {}, limit=LIMIT)
    assert rows.frame.select("text", "label").rows() == pairs() and rows.left_out == {"no_text": 2500}
    assert table.kind == "jsonl"


def test_person_chooses_the_sheet_of_a_workbook(file):
    sheets = {
        "First": [["text", "label"], ["one", "a"], ["two", "b"]],
        "Second": [["text", "label"], *map(list, pairs())],
    }
    path = file(workbook(**sheets))
    table, rows = read(path, "a.xlsx")
    assert rows.frame["text"].to_list() == ["one", "two"]
    assert "the workbook also has “Second”" in " ".join(map(describe_note, rows.notes))
    table, rows = read(path, "a.xlsx", FileOptions(sheet="Second"))
    assert rows.frame.select("text", "label").rows() == pairs() and table.sheet == "Second"
    with pytest.raises(InvalidError, match=r"no sheet “Third”\. It has: “First”, “Second”"):
        read(path, "a.xlsx", FileOptions(sheet="Third"))


def test_damaged_workbook_is_refused_in_words(file):
    with pytest.raises(InvalidError, match="This workbook cannot be read"):
        read(file(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)), "a.xls")
