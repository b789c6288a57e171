"""One content, one name: the canonical hash of rows, and the files that are stored under it."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

SLICE = 50_000  # rows
PART = 10_000  # row numbers whose rows lie in one file


def digest(rows: pl.DataFrame) -> str:
    """SHA-256 over the sorted hashes of the canonical rows (text, label, split or place). The order of rows makes no difference.

    Each field is preceded by its length in bytes, so that no two different rows read the same. Hashes are sorted and not
    rows, because they take a fifth of the memory.
    """
    sides = [pl.col(name).cast(pl.String).fill_null("") for name in ("split", "held_out") if name in rows.columns]
    fields = [pl.col("text"), pl.col("label"), *sides]
    line = pl.concat_str([part for f in fields for part in (f.str.len_bytes().cast(pl.String), pl.lit(":"), f)])
    hashes = [
        hashlib.blake2b(text.encode(), digest_size=32).digest()
        for part in rows.iter_slices(SLICE)
        for text in part.select(line.alias("line"))["line"]
    ]
    hashes.sort()
    total = hashlib.sha256()
    for one in hashes:
        total.update(one)
    return total.hexdigest()


def store(rows: pl.DataFrame, target: Path, before: Path | None = None) -> None:
    """Write the rows whole or not at all; what is there already has the same content.

    More than PART rows are a folder with a file for each 10,000 row numbers. A file that stands unchanged in the folder of
    the version `before` is the same one on disk (a hard link), so that an edited row costs one file.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        if rows.height <= PART:
            _write(rows, draft / "rows")
            (draft / "rows").replace(target)
        else:
            _write_parts(rows, draft, before)
            _rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sync(target.parent)


def _write(rows: pl.DataFrame, file: Path) -> None:
    with open(file, "wb") as out:
        rows.write_parquet(out, compression="zstd")
        out.flush()
        os.fsync(out.fileno())


def _write_parts(rows: pl.DataFrame, folder: Path, before: Path | None) -> None:
    number = (pl.col("row") - 1) // PART
    for part in rows.select(number.unique().sort())["row"]:
        fresh = folder / "fresh"
        _write(rows.filter(number == part), fresh)
        with open(fresh, "rb") as content:
            named = folder / f"{part:06}-{hashlib.file_digest(content, 'sha256').hexdigest()}.parquet"
        try:
            os.link((before or folder) / named.name, named)
            fresh.unlink()
        except OSError:  # not there, or a file system without links
            fresh.replace(named)
    _sync(folder)


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        if not target.exists():  # else somebody else has just stored the same rows
            raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete stored rows; those of other versions stay, linked or not."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def split_of(share: float = 0.1) -> pl.Expr:
    """The split that a row is in when that share is held out."""
    from engine.data.splits import evaluated

    side = pl.when(evaluated(share)).then(pl.lit("eval")).when(~evaluated(share)).then(pl.lit("train"))
    return side.otherwise(pl.lit("left out"))


def with_split(rows: pl.LazyFrame) -> pl.LazyFrame:
    """With a column `split`: the one that was given, else that of the usual share."""
    names = rows.collect_schema().names()
    if "held_out" not in names:
        return rows
    own = split_of()
    if "split" in names:  # train and test were given, nothing to evaluate on
        own = pl.when(pl.col("split") == "test").then(pl.lit("test")).otherwise(own)
    return rows.with_columns(own.alias("split")).drop("held_out")


def splits(rows: pl.DataFrame) -> dict[str, int]:
    """Rows by split."""
    told = with_split(rows.lazy().select(pl.col("^(split|held_out)$")))
    return counts(told.collect()["split"]) if "split" in told.collect_schema().names() else {}


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
