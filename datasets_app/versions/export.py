"""Write the rows of a version to a file: CSV for spreadsheets, JSONL and Parquet for programs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings
from django.utils.translation import gettext as _

from datasets_app.formula_quoting import BOM, quote_formulas
from datasets_app.models import Version
from datasets_app.selectors import RowFilter, filter_rows
from web.disk import require_disk_space
from web.errors import InvalidError

if TYPE_CHECKING:
    import polars as pl

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}
_CHAT_COLUMNS = {"conversations": ("messages",), "preferences": ("prompt", "chosen", "rejected"), "text": ("text",)}
BATCH = 10_000  # rows in memory at a time
_BYTES_PER_STORED_BYTE = 5  # texts take a fifth of their size in the compressed files of a version


@dataclass(frozen=True)
class Export:
    """A file with the rows, ready to be read, and its name."""

    file: IO[bytes]
    filename: str
    content_type: str


def export(version: Version, file_format: str, row_filter: RowFilter) -> Export:
    """Write the rows that pass the filter to a temporary file; raise DiskFullError if it does not fit.

    A file, because a client that reads slowly would otherwise hold a thread of the web server, and because an error
    can still be answered before anything was sent.
    """
    chosen = check_format(file_format)
    require_disk_space(_BYTES_PER_STORED_BYTE * sum(version.sizes().values()))
    file = TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115  the response closes it
    write(version, chosen, row_filter, file)
    file.seek(0)
    return Export(file, f"{version.dataset.name}-{version.number}.{chosen}", CONTENT_TYPES[chosen])


def check_format(name: str) -> Format:
    """Return the format with this name; raise InvalidError if there is none."""
    for known in FORMATS:
        if name == known:
            return known
    raise InvalidError(_("The formats are: %(formats)s.") % {"formats": ", ".join(FORMATS)}, field="format")


def write(version: Version, file_format: Format, row_filter: RowFilter, file: IO[bytes]) -> int:
    """Write the rows that pass the filter to an open file, and return how many there are."""
    writer = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[file_format]
    return writer(_batches(version, row_filter), file)


def _batches(version: Version, row_filter: RowFilter) -> "Iterator[pl.DataFrame]":
    """Yield the columns of the file, batch by batch: first an empty one, which tells the columns.

    They are text and label, or the messages of conversations as JSON; and split and second text where they were given.
    """
    import polars as pl  # half a second, which pages without rows need not wait for

    paths = sorted(version.path.iterdir()) if version.path.is_dir() else [version.path]
    names = pl.read_parquet_schema(paths[0])
    further = [name for name in ("split", "text_pair") if name in names]
    # {column of the file: column of the rows}
    columns = {"text": "text", "label": "label"}
    if version.is_chat:
        columns = dict.fromkeys(_CHAT_COLUMNS[version.kind], "text")
    columns |= {name: name for name in further}
    yield pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    for path in paths:
        with pq.ParquetFile(path) as stored:
            for batch in stored.iter_batches(BATCH):
                rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
                given = rows.select(pl.col(sorted({*columns.values()})).name.prefix("given "))
                filtered = filter_rows(pl.concat([rows, given], how="horizontal").lazy(), row_filter, version.kind)
                chosen = filtered.select(
                    pl.col(f"given {stored}").cast(pl.String).alias(name) for name, stored in columns.items()
                ).collect()
                yield _in_columns(chosen, version.kind)


def _in_columns(rows: "pl.DataFrame", kind: str) -> "pl.DataFrame":
    """Return the rows with what the columns of the file hold: of a preference its parts, of a plain text what it says."""
    import polars as pl  # as above

    if kind == Version.Kind.PREFERENCES:
        return _split_preferences(rows)
    if kind == Version.Kind.TEXT:
        contents = [json.loads(text)[0]["content"] for text in rows["text"]]
        return rows.with_columns(pl.Series("text", contents, dtype=pl.String))
    return rows


def _split_preferences(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Return the rows with prompt, chosen and rejected, all of which hold the whole preference, in their own columns."""
    import polars as pl  # as above

    stored = [json.loads(text) for text in rows["prompt"]]
    parts = [
        pl.Series(name, [json.dumps(preference[name], ensure_ascii=False) for preference in stored], dtype=pl.String)
        for name in _CHAT_COLUMNS["preferences"]
    ]
    return rows.with_columns(parts)


def _write_csv(batches: "Iterator[pl.DataFrame]", file: IO[bytes]) -> int:
    columns = next(batches)
    header = [name.encode() for name in columns.columns]
    if header[0] == b"text":
        header[0] = b'"text"'  # tells our reader that formulas are quoted
    is_chat = columns.columns[0] != "text"  # a JSON list is no formula
    file.write(BOM + b",".join(header) + b"\n")
    total = 0
    for rows in batches:
        quoted = rows if is_chat else rows.with_columns(quote_formulas(name) for name in rows.columns)
        quoted.write_csv(file, include_header=False)
        total += rows.height
    return total


def _write_jsonl(batches: "Iterator[pl.DataFrame]", file: IO[bytes]) -> int:
    if next(batches).columns[0] != "text":
        return _write_conversations(batches, file)
    total = 0
    for rows in batches:
        rows.write_ndjson(file)
        total += rows.height
    return total


def _write_conversations(batches: "Iterator[pl.DataFrame]", file: IO[bytes]) -> int:
    """Write JSON lines with the messages as a list, as OpenAI and others read them."""
    total = 0
    for rows in batches:
        for row in rows.iter_rows(named=True):
            line = {name: value if name == "split" else json.loads(value) for name, value in row.items()}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        total += rows.height
    return total


def _write_parquet(batches: "Iterator[pl.DataFrame]", file: IO[bytes]) -> int:
    schema = next(batches).to_arrow().schema
    total = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(rows.to_arrow().cast(schema))
            total += rows.height
    return total


def write_to(version: Version, file_format: str, row_filter: RowFilter, path: Path) -> int:
    """Write the rows that pass the filter to a new file at `path`, and return how many there are."""
    chosen = check_format(file_format)
    with path.open("xb") as file:
        try:
            return write(version, chosen, row_filter, file)
        except BaseException:
            path.unlink()
            raise
