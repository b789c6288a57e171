"""Archives: one data file is read; bombs, links, nested archives and many files are refused before they are unpacked."""

import gzip
import io
import stat
import struct
import tracemalloc
import zipfile

import pytest

from datasets_app.reading import columns, readers
from datasets_app.reading.archives import FileTooLargeError
from datasets_app.reading.rows import select_rows
from web.errors import InvalidError

LIMIT = 1 << 20
CSV = b"text,label\ngood morning,good\nbad evening,bad\n"


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def read(path, name="data.zip"):
    return readers.read(path, name, limit=LIMIT)


def refused(path) -> str:
    with pytest.raises(InvalidError) as caught:
        read(path)
    assert caught.value.problems[0]["field"] == "file"
    return str(caught.value.message)


@pytest.mark.parametrize("name", ["a.csv", "folder/a.csv", "../../a.csv", "a"])
def test_one_data_file_is_read_beside_hidden_files(file, name):
    content = zipped((name, CSV), ("__MACOSX/._a.csv", b"x"), (".DS_Store", b"x"))
    table = read(file(content))
    assert select_rows(table, columns.choose_columns(table)).frame["label"].to_list() == [
        "good",
        "bad",
    ]


def test_kind_is_that_of_the_file_inside(file):
    assert read(file(zipped(("a.jsonl", b'{"text": "a", "label": "x"}\n')))).kind == "jsonl"


@pytest.mark.medium
def test_bomb_is_refused_by_the_size_in_its_directory(file):
    with pytest.raises(FileTooLargeError):
        read(file(zipped(("a.csv", bytes(50 << 20)))))


def test_bomb_whose_directory_lies_is_stopped_at_the_limit(file):
    content = bytearray(zipped(("a.csv", b"text,label\n" + b"a,b\n" * (2 << 20))))
    size = struct.pack("<I", 100)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.find(signature) + offset
        content[at : at + 4] = size
    with pytest.raises(InvalidError):
        read(file(bytes(content)))


def test_many_files_are_refused_in_little_memory(file):
    many = file(zipped(*((f"{i:06}.csv", b"") for i in range(8_000)), method=zipfile.ZIP_STORED))
    tracemalloc.start()
    assert "too many" in refused(many)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def test_two_data_files_are_named(file):
    message = refused(file(zipped(("a.csv", CSV), ("b.csv", CSV))))
    assert "“a.csv”" in message and "“b.csv”" in message


def test_link_is_refused(file):
    entry = zipfile.ZipInfo("a.csv")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert "link" in refused(file(out.getvalue()))


def test_overlapping_entries_are_refused(file):
    """The second entry of the directory points at the bytes of the first."""
    content = bytearray(zipped((".first", CSV), ("a.csv", CSV)))
    second = content.rfind(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<I", 0)
    assert "damaged" in refused(file(bytes(content)))


@pytest.mark.parametrize("inner", [zipped(("a.csv", CSV)), gzip.compress(CSV, mtime=0)])
def test_archive_in_an_archive_is_refused(file, inner):
    assert "inside this archive" in refused(file(zipped(("a.csv", inner))))
    assert "inside this archive" in refused(file(gzip.compress(inner, mtime=0)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_take_much_memory_are_refused(file, method):
    assert "unusual" in refused(file(zipped(("a.csv", CSV), method=method)))


def test_encrypted_archive_is_refused(file):
    content = bytearray(zipped(("a.csv", CSV)))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1
    assert "encrypted" in refused(file(bytes(content)))


def test_any_damage_is_refused_with_a_message(file):
    whole = zipped(("a.csv", CSV * 50))
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        for content in (bytes(damaged), whole[:at]):
            try:
                read(file(content))
            except InvalidError as error:
                assert error.problems[0]["field"]


def test_parquet_whose_few_bytes_stand_for_gigabytes_is_refused(file, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000), pa.array(["long " * 20_000]))
    label = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 10_000), pa.array(["a", "b"]))
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pa.table({"text": text, "label": label}), path)
    assert path.stat().st_size < 200_000
    with pytest.raises(FileTooLargeError):
        read(path, "bomb.parquet")


@pytest.mark.parametrize(
    "files",
    [
        {"part-1.txt": b"a text\n", "part-2.txt": b"another\n"},
        {"texts.txt": b"a text\n", "labels.txt": b"bad\n"},
        {"spring.txt": b"Cold fish\tbad\nWarm\tgood\n" * 4, "autumn.txt": b"Cold\tbad\nWarm bread\tgood\n" * 4},
        {"neg.csv": b"text\na\n", "pos.csv": b"text\nb\n"},
    ],
    ids=["parts", "labels in a file", "tables", "other formats"],
)
def test_files_whose_names_are_no_labels_are_refused(file, files):
    with pytest.raises(InvalidError, match="archive"):
        read(file(zipped(*files.items())))
