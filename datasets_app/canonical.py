"""One content, one name: the canonical hash of rows, and the files that are stored under it."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl


def digest(rows: pl.DataFrame) -> str:
    """SHA-256 over the sorted canonical rows (text, label, split). The order of rows makes no difference.

    Each field is preceded by its length in bytes, so that no two different rows read the same.
    """
    split = pl.col("split").fill_null("") if "split" in rows.columns else pl.lit("")
    fields = [pl.col("text"), pl.col("label"), split]
    parts = [part for f in fields for part in (f.str.len_bytes().cast(pl.String), pl.lit(":"), f)]
    lines = rows.select(pl.concat_str(parts).alias("line"))["line"].sort()
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()


def store(rows: pl.DataFrame, target: Path) -> None:
    """Write the Parquet file whole or not at all; a file that is there already has the same content."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".draft-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            rows.write_parquet(out, compression="zstd")
            out.flush()
            os.fsync(out.fileno())
        Path(draft).replace(target)
    finally:
        Path(draft).unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def counts(column: pl.Series) -> dict[str, int]:
    """Rows by value, most frequent first."""
    table = column.value_counts(sort=True).sort(["count", column.name], descending=[True, False])
    return dict(zip(table[column.name].to_list(), table["count"].to_list(), strict=True))


def histogram(texts: pl.Series, bins: int = 20) -> list[dict[str, Any]]:
    """Rows by length of text in characters. The last bin holds the longest percent, so that the rest stays visible."""
    lengths = texts.str.len_chars()
    usual, longest = int(lengths.quantile(0.99) or 0), int(lengths.max() or 0)  # type: ignore[arg-type]  # max: of any type
    width = max(1, -(-(usual + 1) // bins))
    placed: dict[Any, int] = counts((lengths // width).clip(upper_bound=bins - 1).alias("bin"))
    last = max(int(key) for key in placed)
    return [
        {"from": i * width, "to": (i + 1) * width if i < last else longest + 1, "rows": placed.get(i, 0)}
        for i in range(last + 1)
    ]
