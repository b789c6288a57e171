"""Files that were once read otherwise than people expect: the smallest input of each fault."""

import json

import pytest

from datasets_app.reading.options import FileOptions
from datasets_app.tests.real_files import LABELS, PLAIN, TEXTS, document, lines, pairs
from datasets_app.tests.test_real_files import read

ROWS = pairs(24)
PLAIN_ROWS = pairs(24, PLAIN)
FRENCH = [(f"Déçu par la qualité ({i} €), jamais plus", ("bon", "mauvais")[i % 2]) for i in range(20)]
JAPANESE = [(f"{i}回目ですが、とてもおいしかったです。", ("良い", "悪い")[i % 2]) for i in range(20)]
RUSSIAN = [(f"Очень хорошее место, спасибо {i}", ("да", "нет")[i % 2]) for i in range(20)]
TURKISH = [(f"Çok güzel bir yer, teşekkürler şef ağabey {i}", ("iyi", "kötü")[i % 2]) for i in range(20)]
CHINESE = [(f"第{i}次來這家店，菜很好吃也很便宜", ("好", "壞")[i % 2]) for i in range(20)]


def table(rows: list[tuple[str, str]], encoding: str, delimiter: str = "\t") -> bytes:
    return "\n".join([f"text{delimiter}label", *(delimiter.join(row) for row in rows), ""]).encode(encoding)


FILES = {
    "spaces between delimiter and mark": (lines(["text, label", *(f'"{t}", "{x}"' for t, x in ROWS)]), ROWS),
    "list as Python writes it": (lines(["text;label", *(f"{t};['{x}']" for t, x in PLAIN_ROWS)]), PLAIN_ROWS),
    "plot of a film and not its title": (
        lines(["title,plot,genre", *(f'Film {i},"{t}",{x}' for i, (t, x) in enumerate(ROWS))]),
        ROWS,
    ),
    "titles with as many cells as the header": (
        lines(
            [
                "Report;;",
                "of last week;;",
                ";;",
                "id;comment;rating",
                *(f"{i};{t};{x}" for i, (t, x) in enumerate(PLAIN_ROWS)),
            ]
        ),
        PLAIN_ROWS,
    ),
    "write.table of R": (
        lines(['"text" "label"', *(f'"{i}" "{t}" "{x}"' for i, (t, x) in enumerate(ROWS, 1))]),
        ROWS,
    ),
    "semicolons between texts with commas": (table(FRENCH, "cp1252", ";"), FRENCH),
    "several characters between cells": (
        lines(["id::text::label", *(f"{i}::{t}::{x}" for i, (t, x) in enumerate(ROWS))]),
        ROWS,
    ),
    "columns as Hive writes them": (lines([f"{i}\x01{t}\x01{x}" for i, (t, x) in enumerate(ROWS)]), ROWS),
    "several characters, no header": (lines([f"{x}_!_{t}" for t, x in ROWS]), ROWS),
    "EUC-JP": (table(JAPANESE, "euc_jp"), JAPANESE),
    "KOI8-R": (table(RUSSIAN, "koi8_r"), RUSSIAN),
    "Windows-1254": (table(TURKISH, "cp1254"), TURKISH),
    "UTF-16 without a mark, little-endian": (table(CHINESE, "utf-16-le"), CHINESE),
    "UTF-16 without a mark, big-endian": (table(CHINESE, "utf-16-be"), CHINESE),
    "JSON by label": (
        document({"good": TEXTS[:6], "bad": TEXTS[6:10]}),
        [*((text, "good") for text in TEXTS[:6]), *((text, "bad") for text in TEXTS[6:10])],
    ),
    "JSON of texts and their labels": (document(dict(ROWS)), ROWS),
    "rows as the hub's viewer answers": (
        document(
            {"features": [{"name": "text"}], "rows": [{"row_idx": 1, "row": {"text": t, "label": x}} for t, x in ROWS]}
        ),
        ROWS,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_as_a_person_expects(file, name):
    content, expected = FILES[name]
    _table, rows = read(file(content), "a.json" if content.startswith(b"{") else "given")
    assert rows.frame.select("text", "label").rows() == expected


def test_lists_as_python_and_numpy_write_them_are_several_labels(file):
    cells = ["['a' 'b']", "['a']", "[]"]
    content = lines(["text;genres", *(f"{t};{cells[i % 3]}" for i, (t, _) in enumerate(PLAIN_ROWS))])
    _table, rows = read(file(content), "a.csv")
    assert rows.kind == "multi_label"
    assert [json.loads(label) for label in rows.frame["label"][:3]] == [["a", "b"], ["a"], []]


def test_scores_with_decimal_commas_are_scores(file):
    content = lines(["text;score", *(f"{t};{i},5" for i, (t, _) in enumerate(PLAIN_ROWS))])
    _table, rows = read(file(content), "a.csv")
    assert rows.kind == "scores" and rows.frame["label"][:2].to_list() == ["0.5", "1.5"]


def test_utf16_that_looks_like_binary_data_is_read_where_it_is_named(file):
    content = table([(f"\u0e01\u0001 {t}", x) for t, x in ROWS], "utf-16-le")
    _table, rows = read(file(content), "a.tsv", FileOptions(encoding="utf-16-le"))
    assert rows.frame["label"].to_list() == LABELS[:24]


def test_delimiter_of_several_characters_can_be_chosen(file):
    content = lines(["text<>label", *(f"{t}, or 3 < 5 > 4<>{x}" for t, x in ROWS)])
    table, rows = read(file(content), "a.txt", FileOptions(delimiter="<>"))
    assert table.delimiter == "<>"
    assert rows.frame.select("text", "label").rows() == [(f"{t}, or 3 < 5 > 4", x) for t, x in ROWS]


def test_quoted_cells_hold_a_delimiter_of_several_characters(file):
    content = lines(["text::label", *(f'"{t} :: so"::"{x}"' for t, x in PLAIN_ROWS)])
    _table, rows = read(file(content), "a.csv")
    assert rows.frame.select("text", "label").rows() == [(f"{t} :: so", x) for t, x in PLAIN_ROWS]
