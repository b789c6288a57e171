"""Read Parquet into a table of strings, in bounded memory: a few bytes of it may stand for gigabytes."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.archives import refuse_cells, too_large
from datasets_app.reading.table import HEAD_ROWS, ReadScope, Table, cell, no_rows, numbers, unique_names
from web.errors import InvalidError

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(plain: Path, limit: int, scope: ReadScope) -> Table:
    """Read a Parquet file.

    Raises InvalidError if it is damaged, and FileTooLargeError if its rows need more than the limit allows.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        frames, rows_in_file = _read_batches(plain, limit, scope)
    except MemoryError:
        raise
    except OverflowError as error:
        message = _("This Parquet file has a date or a number that is out of range: %(why)s. Nothing was stored.")
        raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        message = _("This Parquet file is damaged or not supported: %(why)s. Nothing was stored.")
        raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
    if not frames:
        raise no_rows()
    cells = pl.concat(frames, rechunk=True)
    frame = cells.with_columns(numbers(cells.height, []))
    table = Table(frame, "parquet", encoding="", encodings=(), complete=cells.height == rows_in_file)
    schema = parquet.read_schema(plain)
    shown = dict(zip(schema.names, unique_names(schema.names), strict=True))
    table.lists = [shown[f.name] for f in schema if is_list(f.type) and not pa.types.is_nested(f.type.value_type)]
    table.nested = [shown[f.name] for f in schema if pa.types.is_nested(f.type) and shown[f.name] not in table.lists]
    if named := [shown[name] for name in class_names(schema) if shown[name] in frame.columns]:
        table.notes.append({"code": "class_names", "columns": named})
    return table


def is_list(kind: "pa.DataType") -> bool:
    """Return whether cells of this type are lists."""
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """Return {column: names of its classes} that the hub's data sets keep in the metadata of the schema."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        named = {}
        for column, feature in features.items():
            feature = feature.get("feature", feature) if isinstance(feature, dict) else {}
            names = feature.get("names")
            if isinstance(names, list) and column in schema.names:
                named[column] = [str(name) for name in names]
        return named
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}  # the metadata is of another program


def _read_batches(plain: Path, limit: int, scope: ReadScope) -> tuple[list[pl.DataFrame], int]:
    """Return the rows, batch by batch, and how many the file has."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = parquet.read_schema(plain)
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    file = parquet.ParquetFile(plain, read_dictionary=texts)
    unique = dict(zip(file.schema_arrow.names, unique_names(file.schema_arrow.names), strict=True))
    chosen = [name for name, shown in unique.items() if not scope.only or shown in scope.only]
    # A few bytes of Parquet may stand for billions of rows. A preview reads few of them, but at least two columns will be
    # stored, so the cells of two are checked even then.
    rows = file.metadata.num_rows
    columns = max(1, len(chosen))
    refuse_cells(rows * (min(columns, 2) if scope.head else columns), limit)
    refuse_cells(min(rows, HEAD_ROWS) * columns, limit)
    classes = class_names(schema)
    frames = []
    packed_size = 0
    text_size = 0
    for batch in islice(file.iter_batches(batch_size=HEAD_ROWS, columns=chosen), 1 if scope.head else None):
        # The size is checked before the texts are made, because a dictionary may repeat one long text in each row.
        packed_size += sum(size_without_dictionary(column) for column in batch.columns)
        if packed_size > limit * 2:
            raise too_large(limit)
        names = [unique[name] for name in batch.schema.names]
        series = [
            name_classes(as_text(column), classes.get(raw, [])).alias(name)
            for raw, name, column in zip(batch.schema.names, names, batch.columns, strict=True)
        ]
        frames.append(pl.DataFrame(series))
        text_size += int(frames[-1].estimated_size())
        if text_size > limit * 4:
            raise too_large(limit)
    return frames, rows


def name_classes(cells: pl.Series, names: list[str]) -> pl.Series:
    """Return the cells, numbers of classes or lists of them, with the names of the classes; -1 is no class."""
    if not names:
        return cells
    by_number = {str(number): name for number, name in enumerate(names)} | {"-1": ""}

    def name(cell_text: str) -> str:
        if not cell_text.startswith("["):
            return by_number.get(cell_text, cell_text)
        return json.dumps(
            [by_number.get(str(number), str(number)) for number in json.loads(cell_text)], ensure_ascii=False
        )

    different = cells.unique().to_list()
    return cells.replace_strict({text: name(text) for text in different}, return_dtype=pl.String)


def size_without_dictionary(column: "pa.Array") -> int:
    """Return the bytes of a column without its dictionary, in which one long text may stand for millions."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
    return int(compute.sum(lengths).as_py() or 0) + 8 * len(column)


def is_utf8(text: "pa.Array") -> bool:
    """Return whether all texts are UTF-8, which Parquet promises but nobody checks when a file is read."""
    import pyarrow as pa

    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def as_text(column: "pa.Array") -> pl.Series:
    """Return the values as people write them.

    polars gets text in UTF-8 only: it panics at other bytes, and at dates and decimals out of its range.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    castable = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_boolean)
    if any(is_type(kind) for is_type in castable):
        text = column.cast(pa.large_string())
        if not is_utf8(text):
            text = pa.array([cell(value) for value in text.cast(pa.large_binary()).to_pylist()], pa.large_string())
    else:
        # Python's own types count microseconds, and it has none for a map.
        if types.is_timestamp(kind) and kind.unit == "ns":
            column = column.cast(pa.timestamp("us", kind.tz), safe=False)
        elif types.is_time64(kind) and kind.unit == "ns":
            column = column.cast(pa.time64("us"), safe=False)
        elif types.is_duration(kind) and kind.unit == "ns":
            column = column.cast(pa.duration("us"), safe=False)
        elif types.is_map(kind):
            column = column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        text = pa.array([cell(value) for value in column.to_pylist()], pa.large_string())
    series = pl.from_arrow(text)
    assert isinstance(series, pl.Series)
    return series.fill_null("")
