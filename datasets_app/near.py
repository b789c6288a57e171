"""Near-duplicate texts by MinHash (rensa): candidates by locality-sensitive hashing, then proven by the words.

One band of hashes at a time, over words as 32-bit numbers, so that a million texts take a few hundred megabytes.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

SIMILARITY = 0.8  # Jaccard index of the two texts' words (or, in Chinese and the like, pairs of characters)
_BANDS, _PERMUTATIONS, _SEED = 8, 8, 42  # hashes per band: two texts of similarity 0.8 share one in 77 % of cases
_FEWEST_WORDS = 4
_BATCH = 20_000  # texts
_PAIRS = 100_000  # compared at a time


def near_duplicates(texts: pl.Series) -> dict[int, int]:
    """For each text that nearly repeats an earlier one: its index, and the index of that one. Texts are unique."""
    if texts.len() < 2:
        return {}
    words, offsets = _words(texts)
    pairs = pl.concat([_candidates(words, offsets, band) for band in range(_BANDS)]).unique(["here", "there"])
    proven = _proven(pairs, words, offsets).group_by("here").agg(pl.col("there").min()).sort("here")
    return dict(zip(proven["here"].to_list(), proven["there"].to_list(), strict=True))


def _words(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """All words end to end as numbers: (words,) uint32, and where each text's begin: (texts + 1,) int64."""
    parts, lengths = [], []
    for start in range(0, texts.len(), _BATCH):
        flat, counts = _words_of(texts[start : start + _BATCH])
        parts.append(flat)
        lengths.append(counts)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)


def _words_of(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Words; where a text has no spaces to speak of (Chinese, Japanese, Thai) overlapping pairs of characters."""
    text = pl.col("text")
    spaced = (text.str.count_matches(" ", literal=True) * 12 >= text.str.len_chars()) | (
        text.str.len_bytes() == text.str.len_chars()
    )
    frame = texts.alias("text").to_frame().with_row_index("at").with_columns(spaced.alias("spaced"))
    plain = frame.filter("spaced").select("at", text.str.extract_all(r"\w+").alias("word")).explode("word")
    dense = frame.filter(~pl.col("spaced")).select("at", text.str.split("").alias("word")).explode("word")
    joined = dense.with_columns(pl.concat_str("word", pl.col("word").shift(-1).over("at")).alias("word"))
    rows = pl.concat([plain, joined]).drop_nulls("word").sort("at", maintain_order=True)
    counts = np.bincount(rows["at"].to_numpy(), minlength=texts.len())
    return (rows["word"].hash(_SEED) & 0xFFFF_FFFF).cast(pl.UInt32).to_numpy(), counts


def _candidates(words: np.ndarray, offsets: np.ndarray, band: int) -> pl.DataFrame:
    """Pairs of texts with the same hashes in this band: each with the first of its group and with the one before it."""
    import rensa

    index = rensa.RMinHashLSH(SIMILARITY, _PERMUTATIONS, 1)
    matrices = []
    for start in range(0, len(offsets) - 1, _BATCH):
        matrices.append(_digests(words, offsets, np.arange(start, min(start + _BATCH, len(offsets) - 1)), band))
        index.insert_matrix(matrices[-1], start)
    flags = np.concatenate([index.query_duplicate_flags_matrix(matrix) for matrix in matrices])
    suspects = np.flatnonzero(flags & (np.diff(offsets) >= _FEWEST_WORDS))
    del index, matrices
    rows = [
        _digests(words, offsets, suspects[at : at + _BATCH], band).to_rows() for at in range(0, len(suspects), _BATCH)
    ]
    keys = pl.DataFrame(np.array([key for part in rows for key in part]).reshape(-1, _PERMUTATIONS))
    keys = keys.with_columns(pl.Series("here", suspects, dtype=pl.Int64))
    names = [name for name in keys.columns if name != "here"]
    first = keys.select("here", pl.col("here").min().over(names).alias("there"))
    before = keys.select("here", pl.col("here").shift(1).over(names).alias("there"))
    return pl.concat([first, before]).drop_nulls("there").filter(pl.col("here") > pl.col("there"))


def _digests(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray, band: int) -> Any:
    import rensa

    flat, lengths = _flat(words, offsets, rows)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    return rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat.astype(np.uint64), ends, _PERMUTATIONS, _SEED + band
    )


def _flat(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words of these texts end to end, and how many each has."""
    lengths = np.diff(offsets)[rows]
    places = np.repeat(offsets[rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(
        lengths.sum()
    )
    return words[places], lengths


def _proven(pairs: pl.DataFrame, words: np.ndarray, offsets: np.ndarray) -> pl.DataFrame:
    """The pairs whose words really are that similar."""
    found = [pairs.clear()]
    for part in pairs.iter_slices(_PAIRS):
        one, other = (_lists(words, offsets, part[name].to_numpy()) for name in ("here", "there"))
        common = pl.DataFrame({"one": one, "other": other}).select(
            pl.col("one").list.set_intersection("other").list.len().alias("both"),
            pl.col("one").list.set_union("other").list.len().alias("all"),
        )
        found.append(part.filter(common["both"] >= SIMILARITY * common["all"]))
    return pl.concat(found)


def _lists(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> pl.Series:
    flat, lengths = _flat(words, offsets, rows)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    lists = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(ends), pa.array(flat)))
    assert isinstance(lists, pl.Series)
    return lists
