"""Malformed files that people and programs really send; each has once broken a reader."""

import gzip
import io
import zipfile
from functools import cache

import polars as pl

ROWS = [
    (f"the {word} number {i} of all", "ab"[i % 2]) for i, word in enumerate(["lamp", "river", "carpet", "window"] * 3)
]
LINES = ["text,label", *(f"{text},{label}" for text, label in ROWS)]
CSV = "\n".join(LINES).encode()
JSONL = b"\n".join(b'{"text": "%b", "label": "%b"}' % (t.encode(), x.encode()) for t, x in ROWS)


@cache
def good() -> dict[str, bytes]:
    """Return a good file of each format, to be damaged."""
    parquet, archive = io.BytesIO(), io.BytesIO()
    pl.DataFrame(ROWS, schema=["text", "label"], orient="row").write_parquet(parquet)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo("data.csv", (2020, 1, 1, 0, 0, 0)), CSV)
    return {
        "a.csv": CSV,
        "a.tsv": CSV.replace(b",", b"\t"),
        "a.json": b"[" + JSONL.replace(b"\n", b",") + b"]",
        "a.jsonl": JSONL,
        "a.parquet": parquet.getvalue(),
        "a.csv.gz": gzip.compress(CSV, mtime=0),
        "a.zip": archive.getvalue(),
        "big5.csv": "\n".join(
            ["文字,標籤", *(f"這家餐廳的服務很好，第{i}次,{'好壞'[i % 2]}" for i in range(12))]
        ).encode("cp950"),
        "utf16.csv": CSV.decode().encode("utf-16"),
    }


MALFORMED: dict[str, tuple[str, bytes]] = {
    "quotation mark never closed": ("a.csv", b'text,label\n"open,a\n' + CSV[11:]),
    "quotation mark inside a field": ("a.csv", b'text,label\nsay "hi" to,a\n"x"y,b\n' + CSV[11:]),
    "one field too many": ("a.csv", CSV.replace(b" of all,", b" of, all,", 5)),
    "header only": ("a.csv", b"text,label"),
    "header alone in quotation marks": ("a.csv", b'"text,label"\n' + CSV[11:]),
    "no header": ("a.csv", CSV[11:]),
    "names missing": ("a.csv", b",\n" + CSV[11:]),
    "a name of many lines": ("a.csv", b'"te\nxt",label\n' + CSV[11:]),
    "NUL in the middle": ("a.csv", CSV.replace(b"river", b"ri\x00er")),
    "three kinds of line endings": ("a.csv", CSV.replace(b"\n", b"\r", 3).replace(b"\n", b"\r\n", 3)),
    "only carriage returns": ("a.csv", CSV.replace(b"\n", b"\r")),
    "byte order mark twice": ("a.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + CSV),
    "byte order mark of UTF-32 alone": ("a.csv", b"\xff\xfe\x00\x00"),
    "UTF-16 with an odd number of bytes": ("a.csv", CSV.decode().encode("utf-16")[:-1]),
    "UTF-8 cut in a character": ("a.csv", "text,label\n好,a\n壞,b\n好".encode()[:-1]),
    "overlong UTF-8": ("a.csv", CSV.replace(b"lamp", b"\xc0\xaf\xe0\x80\xaf")),
    "Big5 cut in a character": ("a.csv", good()["big5.csv"][:-4]),
    "two encodings in one file": ("a.csv", CSV + "\n這家很好,a\n".encode("cp950") + "這家很好,b\n".encode()),
    "every byte once": ("a.csv", CSV + bytes(range(256))),
    "formulas of a spreadsheet": ("a.csv", CSV.replace(b"the lamp", b"=cmd|' /C calc'!A0")),
    "JSON that is a number": ("a.json", b"1e999"),
    "JSON with NaN": ("a.json", b'[{"text": NaN, "label": "a"}, {"text": Infinity, "label": "b"}]'),
    "JSON of lists": ("a.json", b'[["a", "b"], ["c", "d"]]'),
    "JSON nested in every cell": ("a.json", b'[{"text": {"a": [1, {"b": 2}]}, "label": []}, {"text": [], "label": {}}]'),
    "JSON with one key twice": ("a.json", b'[{"text": "x", "text": "y", "label": "a"}, {"text": "z", "label": "b"}]'),
    "JSON lines with a comma behind each": ("a.jsonl", JSONL.replace(b"\n", b",\n")),
    "JSON lines, the last one cut": ("a.jsonl", JSONL[:-9]),
    "JSON lines with a million brackets": ("a.jsonl", JSONL + b"\n" + b"[" * 1_000_000),
    "JSON number with a hundred thousand digits": ("a.jsonl", JSONL + b'\n{"text": ' + b"9" * 100_000 + b', "label": 1}'),
    "JSON lines called CSV": ("a.csv", JSONL),
    "CSV called JSON": ("a.json", CSV),
    "CSV called Parquet": ("a.parquet", CSV),
    "CSV called gzip": ("a.csv.gz", CSV),
    "Parquet called CSV": ("a.csv", good()["a.parquet"]),
    "Parquet without its end": ("a.parquet", good()["a.parquet"][:-9]),
    "Parquet whose end says too much": ("a.parquet", good()["a.parquet"][:-8] + b"\xff\xff\xff\x7fPAR1"),
    "gzip twice": ("a.csv.gz", gzip.compress(gzip.compress(CSV, mtime=0), mtime=0)),
    "gzip with something behind it": ("a.csv.gz", gzip.compress(CSV, mtime=0) + b"more"),
    "gzip without its end": ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-6]),
    "ZIP of nothing": ("a.zip", b"PK\x05\x06" + bytes(18)),
    "name with a NUL": ("a\x00.csv", CSV),
    "name of a path": ("../../etc/passwd.csv", CSV),
}  # fmt: skip
