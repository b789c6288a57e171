"""The canonical hash of rows, and the files that are stored under it, so that the same rows are stored once."""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.splits import is_held_out
from engine.storage import STALE_S, file_hash, link_or_copy, sweep_drafts, write_file, write_folder

SLICE = 50_000  # rows
PART = 10_000  # row numbers whose rows lie in one file


def hash_rows(rows: pl.DataFrame) -> str:
    """Return the SHA-256 over the sorted hashes of the canonical rows (text, label, split or place, second text), whatever their order.

    Each field is preceded by its length in bytes, so that no two different rows read the same. Hashes are sorted and not
    rows, because they take a fifth of the memory.
    """
    further = ("split", "held_out", "text_pair")
    places = [pl.col(name).cast(pl.String).fill_null("") for name in further if name in rows.columns]
    fields = [pl.col("text"), pl.col("label"), *places]
    line = pl.concat_str([part for f in fields for part in (f.str.len_bytes().cast(pl.String), pl.lit(":"), f)])
    hashes = [
        hashlib.blake2b(text.encode(), digest_size=32).digest()
        for part in rows.iter_slices(SLICE)
        for text in part.select(line.alias("line"))["line"]
    ]
    hashes.sort()
    total = hashlib.sha256()
    for row_hash in hashes:
        total.update(row_hash)
    return total.hexdigest()


def store(rows: pl.DataFrame, target: Path, before: Path | None = None) -> None:
    """Write the rows under the hash of their content; a target that is there already holds the same rows.

    More than PART rows are a folder with a file for each 10,000 row numbers. A file that stands unchanged in the folder of
    the version `before` is the same one on disk (a hard link), so that an edited row costs one file.

    Raises DiskFullError when they cannot be written.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(target.parent, older_than_s=STALE_S)

    def write_parts(folder: Path) -> None:
        part_numbers = (pl.col("row") - 1) // PART
        for number in rows.select(part_numbers.unique().sort())["row"]:
            fresh = folder / "fresh"
            rows.filter(part_numbers == number).write_parquet(fresh, compression="zstd")
            part = folder / f"{number:06}-{file_hash(fresh)}.parquet"
            unchanged = before / part.name if before else None
            if unchanged and unchanged.exists():
                link_or_copy(unchanged, part)
                fresh.unlink()
            else:
                fresh.rename(part)

    if rows.height <= PART:
        write_file(target, lambda draft: rows.write_parquet(draft, compression="zstd"))
    else:
        # Two requests may store the same rows at once: the first to end is kept, because somebody may be reading it.
        write_folder(target, write_parts, manifest=False, keep_existing=True)


def with_split(rows: pl.LazyFrame, share: float = 0.1) -> pl.LazyFrame:
    """Return the rows with a column `split`: the one that was given, else that of a run that holds out this share."""
    names = rows.collect_schema().names()
    if "held_out" not in names:
        return rows
    chosen = pl.when(is_held_out(share)).then(pl.lit("eval")).when(~is_held_out(share)).then(pl.lit("train"))
    split = chosen.otherwise(pl.lit("left out"))  # its place is null: it nearly repeats rows on both sides
    if "split" in names:  # train and test were given, nothing to evaluate on
        split = pl.when(pl.col("split") == "test").then(pl.lit("test")).otherwise(split)
    return rows.with_columns(split.alias("split")).drop("held_out")


def count_splits(rows: pl.DataFrame) -> dict[str, int]:
    """Return {split: rows}; empty if the rows have no split."""
    splits = with_split(rows.lazy().select(pl.col("^(split|held_out)$"))).collect()
    return count_values(splits["split"]) if "split" in splits.columns else {}


def count_values(column: pl.Series) -> dict[str, int]:
    """Return {value: rows}, the most frequent first, equally frequent ones in their order."""
    table = column.value_counts(sort=True).sort(["count", column.name], descending=[True, False])
    return dict(zip(table[column.name].to_list(), table["count"].to_list(), strict=True))


def histogram(texts: pl.Series, bins: int = 20) -> list[dict[str, Any]]:
    """Return bins {from, to, rows} of text length in characters.

    The last bin holds the longest percent, so that the rest stays visible.
    """
    lengths = texts.str.len_chars()
    percentile_99 = int(lengths.quantile(0.99) or 0)
    longest = int(lengths.max() or 0)  # type: ignore[arg-type]  # max: of any type
    width = max(1, -(-(percentile_99 + 1) // bins))
    rows_of_bin: dict[Any, int] = count_values((lengths // width).clip(upper_bound=bins - 1).alias("bin"))
    last = max(int(number) for number in rows_of_bin)
    return [
        {"from": i * width, "to": (i + 1) * width if i < last else longest + 1, "rows": rows_of_bin.get(i, 0)}
        for i in range(last + 1)
    ]
