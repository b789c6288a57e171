"""Parquet to a table of strings, in bounded memory: a few bytes of it may stand for gigabytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from accounts.errors import Invalid

from .files import too_large
from .table import HEAD_ROWS, Part, Table, cell, no_rows, numbers, unique_names


def read_parquet(plain: Path, limit: int, part: Part) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    with _damaged_parquet(pa.ArrowException):
        schema = parquet.read_schema(plain)
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        file = parquet.ParquetFile(plain, read_dictionary=texts)
        unique = dict(zip(file.schema_arrow.names, unique_names(file.schema_arrow.names), strict=True))
        wanted = [name for name, shown in unique.items() if not part.only or shown in part.only]
        if file.metadata.num_rows > limit:  # a few bytes of Parquet may stand for billions of rows
            raise too_large(limit)
        batches, size = [], 0
        for batch in islice(file.iter_batches(batch_size=HEAD_ROWS, columns=wanted), 1 if part.head else None):
            size += sum(map(_plain_bytes, batch.columns))
            if size > limit * 2:
                raise too_large(limit)
            plain_columns = [_without_dictionary(column) for column in batch.columns]
            batches.append(pa.RecordBatch.from_arrays(plain_columns, [unique[name] for name in batch.schema.names]))
        if not batches:
            raise no_rows()
        frame = pl.from_arrow(pa.Table.from_batches(batches))
    assert isinstance(frame, pl.DataFrame)
    cells = frame.select([_as_text(frame[name]) for name in frame.columns])
    complete = cells.height == file.metadata.num_rows
    frame = cells.with_columns(numbers(cells.height, []))
    return Table(frame, "parquet", encoding="", encodings=(), complete=complete)


def _plain_bytes(column: Any) -> int:
    """What a column takes without its dictionary, in which one long text may stand for millions."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
    return int(compute.sum(lengths).as_py() or 0) + 8 * len(column)


def _without_dictionary(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column.fill_null("")
    if column.dtype.is_integer() or column.dtype == pl.Categorical:
        return column.cast(pl.String).fill_null("")
    return pl.Series(column.name, [cell(value) for value in column.to_list()], dtype=pl.String)


@contextmanager
def _damaged_parquet(arrow_error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (arrow_error, OSError, ValueError) as error:
        message = _("This Parquet file is damaged or not supported: %(why)s. Nothing was stored.")
        raise Invalid(message % {"why": str(error)[:120]}, field="file") from None
