"""Texts that say the same: equal but for case and white space, or nearly so by MinHash (rensa).

Candidates come by locality-sensitive hashing and are proven by the words.

One band of hashes at a time, over words as 32-bit numbers, so that a million texts take a few hundred megabytes.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pyarrow as pa

SIMILARITY = 0.8  # Jaccard index of the two texts' words (or, in Chinese and the like, pairs of characters)
_BANDS, _PERMUTATIONS, _SEED = 8, 8, 42  # hashes per band: two texts of similarity 0.8 share one in 77 % of cases
_MIX = np.random.default_rng(_SEED).integers(1, 2**63, _PERMUTATIONS // 2, dtype=np.uint64) | np.uint64(1)
_FEWEST_WORDS = 4
_BATCH = 20_000  # texts
_PAIRS = 100_000  # compared at a time
_SLICE = 50_000  # texts


def same_text(column: str = "text") -> pl.Expr:
    """Texts that differ only in case and white space are the same one."""
    return pl.col(column).str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def text_hash(text: str) -> int:
    """64 bits of a text, the same on every machine and in every release: what splits and folds go by."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def groups(texts: pl.Series) -> pl.DataFrame:
    """For each text: `same`, the hash of what it says, and `group`, the least hash among its near-duplicates.

    Texts are compared in the order of their hashes, so that the order of rows makes no difference.
    """
    hashes = np.concatenate([_hashes(texts[at : at + _SLICE]) for at in range(0, max(1, texts.len()), _SLICE)])
    distinct, order = np.unique(hashes, return_index=True)
    of_group = distinct.copy()
    for here, there in near_duplicates(texts, order).items():
        of_group[here] = of_group[there]  # partners stand earlier and know their group by now
    return pl.DataFrame({"same": hashes, "group": of_group[np.searchsorted(distinct, hashes)]})


def _hashes(texts: pl.Series) -> np.ndarray:
    said = texts.alias("text").to_frame().select(same_text())["text"]
    return np.fromiter(map(text_hash, said), dtype=np.uint64, count=said.len())


def near_duplicates(texts: pl.Series, order: np.ndarray) -> dict[int, int]:
    """For each text that nearly repeats an earlier one: its place in the order, and the place of that one.

    `order`: indexes of texts that say different things, in which they are compared.
    """
    if len(order) < 2:
        return {}
    words, offsets = _words(texts, order)
    pairs = pl.concat([_candidates(words, offsets, band) for band in range(_BANDS)]).unique(["here", "there"])
    proven = _proven(pairs, words, offsets).group_by("here").agg(pl.col("there").min()).sort("here")
    return dict(zip(proven["here"].to_list(), proven["there"].to_list(), strict=True))


def _words(texts: pl.Series, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All words end to end as numbers: (words,) uint32, and where each text's begin: (texts + 1,) int64."""
    every, lengths = bytearray(), []  # grows in place: beside a list of parts, their sum would be there twice
    for start in range(0, len(order), _BATCH):
        part = texts.gather(order[start : start + _BATCH]).alias("text").to_frame().select(same_text())
        words, counts = _words_of(part["text"])
        every += words.tobytes()
        lengths.append(counts)
    ends = np.cumsum(np.concatenate(lengths))
    return np.frombuffer(every, dtype=np.uint32), np.concatenate([[0], ends]).astype(np.int64)


def _words_of(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    rows = words_of(texts).sort("at", maintain_order=True)
    counts = np.bincount(rows["at"].to_numpy(), minlength=texts.len())
    return (rows["word"].hash(_SEED) & 0xFFFF_FFFF).cast(pl.UInt32).to_numpy(), counts


def words_of(texts: pl.Series) -> pl.DataFrame:
    """`at`, the text's index, and `word`; in a text without spaces to speak of (Chinese, Japanese, Thai) pairs of characters."""
    text = pl.col("text")
    spaced = (text.str.count_matches(" ", literal=True) * 12 >= text.str.len_chars()) | (
        text.str.len_bytes() == text.str.len_chars()
    )
    frame = texts.alias("text").to_frame().with_row_index("at").with_columns(spaced.alias("spaced"))
    plain = frame.filter("spaced").select("at", text.str.extract_all(r"\w+").alias("word")).explode("word")
    dense = frame.filter(~pl.col("spaced")).select("at", text.str.split("").alias("word")).explode("word")
    joined = dense.with_columns(pl.concat_str("word", pl.col("word").shift(-1).over("at")).alias("word"))
    return pl.concat([plain, joined]).drop_nulls("word")


def _candidates(words: np.ndarray, offsets: np.ndarray, band: int) -> pl.DataFrame:
    """Pairs of texts with the same hashes in this band: each with the first of its group and with the one before it."""
    batches = [np.arange(start, min(start + _BATCH, len(offsets) - 1)) for start in range(0, len(offsets) - 1, _BATCH)]
    keys = np.concatenate([_keys(words, offsets, rows, band) for rows in batches])
    long = np.flatnonzero(np.diff(offsets) >= _FEWEST_WORDS)
    same = pl.DataFrame({"here": long, "key": keys[long]}).filter(pl.col("key").is_duplicated())
    first = same.select("here", pl.col("here").min().over("key").alias("there"))
    before = same.select("here", pl.col("here").shift(1).over("key").alias("there"))
    return pl.concat([first, before]).drop_nulls("there").filter(pl.col("here") > pl.col("there"))


def _keys(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray, band: int) -> np.ndarray:
    """One number for the band's hashes of each text, (rows,) uint64: rensa's own index takes 130 MB more for a million."""
    import rensa

    flat, lengths = _flat(words, offsets, rows)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat.astype(np.uint64), ends, _PERMUTATIONS, _SEED + band
    )
    pairs = np.array(digests.to_rows(), dtype=np.uint32).view(np.uint64)
    return (pairs * _MIX).sum(axis=1, dtype=np.uint64)


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
