"""Any file is either stored whole, or refused with a message and nothing stored. Never a stack trace."""

import csv
import gzip
import io
import json

import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_app import services
from datasets_app.models import Dataset
from datasets_app.reading import columns, readers
from datasets_app.reading.options import ColumnOptions
from datasets_app.reading.rows import select_rows
from datasets_app.versions import canonical
from web.errors import LorasiteError

from .malformed import MALFORMED, good

LIMIT = 20 << 20
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t")  # many others: not a text file
WORDS = st.text(CHARACTERS, max_size=30)
ROWS = st.lists(st.tuples(WORDS, st.sampled_from(["good", "bad", "0", "標籤"])), min_size=1, max_size=15)


def stored_files():
    return {p for p in (django_settings.DATA_DIR / "datasets").rglob("*") if p.is_file()}


@pytest.mark.django_db
@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_file_is_stored_whole_or_refused_with_a_message(member, file, what):
    name, content = MALFORMED[what]
    before = stored_files()
    try:
        version = services.create_version(user=member, name="sent", file=file(content), filename=name)
    except LorasiteError as error:
        assert str(error.message).endswith((".", "?", "…")) and "Traceback" not in str(error.message)
        assert not Dataset.objects.exists() and stored_files() == before
    else:
        rows = pl.read_parquet(version.path)
        assert rows.height == version.rows == sum(version.labels.values()) > 0
        assert not rows.select("text", "label").null_count().sum_horizontal().item()


@st.composite
def damaged(draw):
    """Return a good file with bytes changed, removed or inserted, or with its end cut off."""
    name = draw(st.sampled_from(sorted(good())))
    content = bytearray(good()[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        new = draw(st.binary(max_size=6) | st.sampled_from([b'"', b"\r", b"\x00", b",,", b"\xff\xfe", b"{", b"]"]))
        content[at : at + draw(st.sampled_from([0, len(new), 40]))] = new
    return name, bytes(content[: draw(st.sampled_from([len(content), len(content) // 2]))])


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_any_damage_is_read_or_refused_with_a_message(file, sent):
    name, content = sent
    try:
        table = readers.read(file(content), name, limit=LIMIT)
        rows = select_rows(table, columns.choose_columns(table))
    except LorasiteError as error:
        assert str(error.message)
    else:
        assert rows.frame.height + rows.skipped == table.frame.height


@pytest.mark.parametrize("dictionary", [True, False])
def test_bytes_in_a_parquet_that_are_no_text_are_replaced(file, dictionary):
    out = io.BytesIO()
    sent = {"text": ["a good day", "a bad day"] * 4, "label": ["good", "bad"] * 4}
    pyarrow.parquet.write_table(pyarrow.table(sent), out, use_dictionary=dictionary, compression="none")
    damaged_bytes = out.getvalue().replace(b"a bad day", b"a b\xffd day")
    table = readers.read(file(damaged_bytes), "a.parquet", limit=LIMIT)
    rows = select_rows(table, columns.choose_columns(table))
    assert rows.frame["text"].to_list()[:2] == ["a good day", "a b\ufffdd day"]


def written(rows, name, ending):
    """Return the rows as a file with this name and line ending."""
    records = [{"text": text, "label": label} for text, label in rows]
    if name.endswith(".parquet"):
        out = io.BytesIO()
        pl.DataFrame(records, schema={"text": pl.String, "label": pl.String}).write_parquet(out)
        return out.getvalue()
    if name.endswith(".json"):
        return json.dumps(records, ensure_ascii=len(rows) % 2 == 0).encode()
    if name.endswith(".jsonl"):
        return ending.join(json.dumps(record) for record in records).encode()
    sheet = io.StringIO(newline="")
    writer = csv.writer(
        sheet, delimiter="\t" if name.endswith(".tsv") else ",", lineterminator=ending, quoting=csv.QUOTE_ALL
    )
    writer.writerows([("text", "label"), *rows])
    return sheet.getvalue().encode()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.randoms(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_format_order_line_ending_and_packing_make_no_difference_to_the_hash(file, rows, random, ending, packed):
    rows = [(f"x{text}", label) for text, label in rows]  # a text of white space alone is no row
    expected = None
    for name in ("a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"):
        random.shuffle(rows)
        content = written(rows, name, ending)
        sent = file(gzip.compress(content, mtime=0) if packed else content)
        table = readers.read(sent, name + ".gz" * packed, limit=LIMIT)
        stored = select_rows(
            table, columns.choose_columns(table, ColumnOptions(text=("text",), label=("label",)))
        ).frame
        assert stored.height == len(rows) and table.broken_lines == 0
        digest = canonical.hash_rows(stored)
        expected = expected or digest
        assert digest == expected, name
