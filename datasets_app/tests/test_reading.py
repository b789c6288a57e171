"""Files that people send are read, or refused with a message."""

import gzip
import io
import json

import polars as pl
import pytest

from datasets_app.reading import columns, readers
from datasets_app.reading.archives import FileTooLargeError
from datasets_app.reading.encodings import detect
from datasets_app.reading.options import ColumnOptions, FileOptions
from datasets_app.reading.rows import refuse_untrainable, select_rows
from datasets_app.reading.table import ROW
from web.errors import InvalidError

LIMIT = 20 << 20
PAIRS = [("good morning", "good"), ("bad evening", "bad"), ("good night", "good")]


def read(path, name="data.csv", **options):
    return readers.read(path, name, limit=LIMIT, options=FileOptions(**options))


def refused(path, name="data.csv", **options):
    with pytest.raises(InvalidError) as caught:
        table = read(path, name, **options)
        rows = select_rows(table, columns.choose_columns(table))
        refuse_untrainable(rows)
    return caught.value


def _parquet():
    out = io.BytesIO()
    pl.DataFrame(PAIRS, schema=["text", "label"], orient="row").write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\n" + b"\n".join(f"{t},{x}".encode() for t, x in PAIRS)),
        ("a.csv", b"text;label\r\n" + b"\r\n".join(f"{t};{x}".encode() for t, x in PAIRS)),
        ("a.tsv", b"text\tlabel\n" + b"\n".join(f"{t}\t{x}".encode() for t, x in PAIRS)),
        ("a.json", json.dumps([{"text": t, "label": x} for t, x in PAIRS]).encode()),
        ("a.json", json.dumps({"text": [t for t, _ in PAIRS], "label": [x for _, x in PAIRS]}).encode()),
        ("a.json", json.dumps({"data": [{"text": t, "label": x} for t, x in PAIRS]}).encode()),
        ("a.jsonl", b"\n".join(json.dumps({"text": t, "label": x}).encode() for t, x in PAIRS)),
        ("a.json", b"\n".join(json.dumps({"text": t, "label": x}).encode() for t, x in PAIRS)),
        ("a.parquet", _parquet()),
        ("a", _parquet()),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_each_format_gives_the_same_rows(file, name, content, packed):
    table = read(file(gzip.compress(content, mtime=0) if packed else content), name + ".gz" * packed)
    rows = select_rows(table, columns.choose_columns(table)).frame
    assert rows.select("text", "label").rows() == PAIRS
    assert rows["row"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "早安，今天的天氣很好"),
        ("utf-8-sig", "早安，今天的天氣很好"),
        ("utf-16", "早安，今天的天氣很好"),
        ("utf-16-le", "good morning to you all"),
        ("cp950", "這家餐廳的服務很好，我們下次還會再來，價錢也合理"),
        ("gb18030", "这家餐厅的服务很好，我们下次还会再来，价钱也合理"),
        ("cp1252", "the café was très agréable – “naïve” they say"),
        ("cp1251", "Это очень хороший фильм, мне понравилось"),
        ("cp932", "これはとても良い映画でした"),
    ],
)
def test_encoding_is_recognised(file, encoding, text):
    path = file(f'text,label\n"{text}",good\nplain,bad\n'.encode(encoding))
    table = read(path)
    assert table.frame["text"][0] == text
    assert table.encoding in detect(path).candidates


def test_chosen_encoding_wins(file):
    path = file("text,label\n這家,好\n那家,壞\n".encode("cp950"))
    assert read(path, encoding="latin-1").frame["text"][0] != "這家"
    assert read(path, encoding="cp950").frame["text"][0] == "這家"


def test_unknown_encoding_is_refused_by_field(file):
    assert refused(file("text,label\na,b\n"), encoding="zip").problems[0]["field"] == "encoding"


def test_broken_lines_are_counted_and_the_others_keep_their_numbers(file):
    table = read(file('text,label\none,a\nonly one field\n"two\nlines",b\nx,y,z\nthree,a\n'))
    assert table.broken_lines == 2
    assert [e["row"] for e in table.broken_examples] == [2, 4]
    assert table.frame[ROW].to_list() == [1, 3, 5]


def test_lone_quotation_mark_does_not_swallow_the_file(file):
    lines = [f"text {i} is long,{'ab'[i % 2]}" for i in range(50)]
    table = read(file("\n".join(["text,label", '"never closed,a', *lines])))
    assert table.frame.height + table.broken_lines >= 51
    assert table.frame.height >= 50


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "nothing inside"),
        ("a.csv.gz", gzip.compress(b"text,label\na,b\n" * 99, mtime=0)[:-20], "damaged"),
        ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "PNG"),
        ("a.csv", b"PK\x03\x04" + bytes(100), "damaged"),
        ("a.csv", bytes(range(256)) * 50, "binary"),
        ("a.csv", b"\x00" * 5000, "binary"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"\n\n\n", "no rows"),
        ("a.csv", b"text,label\na,x\nb,x\n", "two"),
        ("a.csv", b"text,label\n,x\n,y\n", "No row"),
        ("a.json", b"{not json", "not valid JSON"),
        ("a.json", b"42", "neither"),
        ("a.json", b"[" * 100_000, "nested"),
        ("a.json", b'{"text": ["a"], "label": []}', "differ in length"),
        ("a.jsonl", b"nonsense\nmore\n", "no rows"),
        ("a.parquet", b"PAR1" + b"x" * 100 + b"PAR1", "damaged"),
    ],
)
def test_bad_file_is_refused_with_a_message(file, name, content, says):
    error = refused(file(content), name)
    assert says in str(error.message)
    assert error.problems[0]["field"]


def test_missing_label_column_is_refused_with_the_columns_that_exist(file):
    error = refused(file("remark,number\n" + "\n".join(f"remark number {i},{i}" for i in range(30))))
    assert error.problems[0]["field"] == "label_column"
    assert "“remark”" in str(error.message) and "“number”" in str(error.message)


def test_too_many_labels_are_refused(file):
    table = read(file("text,label\n" + "\n".join(f"text {i},label {i}" for i in range(300))))
    with pytest.raises(InvalidError, match="300 different values"):
        refuse_untrainable(
            select_rows(table, columns.choose_columns(table, ColumnOptions(text=("text",), label=("label",))))
        )


def test_file_over_the_limit_is_413(file):
    with pytest.raises(FileTooLargeError) as caught:
        readers.read(file(b"text,label\n" + b"a,b\n" * 1000), "a.csv", limit=1000)
    assert caught.value.status == 413


@pytest.mark.medium
def test_gzip_bomb_is_stopped_at_the_limit(file):
    with pytest.raises(FileTooLargeError):
        readers.read(file(gzip.compress(bytes(50 << 20), mtime=0)), "a.csv.gz", limit=LIMIT)


def test_endless_line_is_refused(file):
    assert "longer than" in str(refused(file(b"text,label\n" + b"x" * (17 << 20) + b",good\n")).message)
    assert "longer than" in str(refused(file(b"x" * (1 << 19))).message)


def test_nul_bytes_and_lone_surrogates_become_replacement_characters(file):
    table = read(file(b"text,label\nni\x00ce,good\nbad,bad\n"))
    assert select_rows(table, columns.choose_columns(table)).frame["text"][0] == "ni\ufffdce"
    table = read(file(b'{"text": "a\\ud800b\\u0000", "label": 1.0}\n{"text": "c", "label": 2}\n'), "a.jsonl")
    assert table.frame["text"][0] == "a?b\ufffd" and table.frame["label"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    "names", ["text,label", "comment,mood", "Review Text,Sentiment", "foo,bar", "評論,情緒", "x,category"]
)
def test_columns_are_guessed_by_name_or_shape(file, names):
    rows = [f"a longer piece of text number {i},{'ab'[i % 2]}" for i in range(40)]
    table = read(file("\n".join(["id," + names, *(f"{i},{r}" for i, r in enumerate(rows))])))
    chosen = columns.choose_columns(table)
    assert [chosen.text, chosen.label] == names.split(",")


def test_split_column_is_respected(file):
    table = read(file("text,label,split\na b c,x,train\nd e f,y,validation\ng h i,x,TEST\n"))
    rows = select_rows(table, columns.choose_columns(table)).frame
    assert rows["split"].to_list() == ["train", "eval", "test"]


def test_duplicate_and_empty_column_names_are_made_unique(file):
    assert read(file("text,text,,label\na,b,c,d\n")).columns == ["text", "text (2)", "column 3", "label"]
