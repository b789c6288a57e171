"""Find texts that are equal but for case and white space, or nearly so: Jaccard similarity of at least 0.8.

Candidates come from MinHash signatures (Broder 1997) by locality-sensitive hashing in bands (Indyk and Motwani 1998; see
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3); each pair is then verified on the exact sets.
The elements of a set are the words of a text or, in scripts without spaces, its character bigrams, all called words here.

Memory bounds the design, not speed: words are 32-bit hashes, and one band is computed at a time, so that a million texts
take a few hundred megabytes.
"""

from __future__ import annotations

import hashlib
from itertools import chain

import numpy as np
import polars as pl
import pyarrow as pa

SIMILARITY = 0.8  # Jaccard index: words in both texts by words in either
# Two texts of similarity s share a band with probability 1 - (1 - s^HASHES_PER_BAND)^BANDS: 77 % at 0.8, 3 % at 0.5.
BANDS = 8
HASHES_PER_BAND = 8
SEED = 42
MIN_WORDS = 4
SIGNATURE_BATCH = 20_000  # texts
VERIFY_BATCH = 100_000  # pairs
HASH_BATCH = 50_000  # texts

# Random odd numbers that mix a band's hashes, two by two, into one key.
_MIX = np.random.default_rng(SEED).integers(1, 2**63, HASHES_PER_BAND // 2, dtype=np.uint64) | np.uint64(1)


def normalised_text(column: str = "text") -> pl.Expr:
    """Normalise a text: two that differ only in case and white space become equal."""
    # Single spaces, which most white space is, stay as they are: replacing them too takes four times as long.
    return pl.col(column).str.to_lowercase().str.replace_all(r"\s{2,}|[^\S ]", " ").str.strip_chars()


def hash_text(text: str) -> int:
    """Return 64 bits of a text that are the same on every machine and in every release; splits and folds depend on it."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def group_near_duplicates(texts: pl.Series) -> pl.DataFrame:
    """Return for each text `same`, the hash of the normalised text, and `group`, the least hash among its near-duplicates.

    A text joins the group of its first near-duplicate, in the order of hashes: connected components but for texts that
    link two groups, and independent of the order of rows.
    """
    hashes = np.empty(texts.len(), dtype=np.uint64)
    for start in range(0, texts.len(), HASH_BATCH):
        normalised = texts[start : start + HASH_BATCH].alias("text").to_frame().select(normalised_text())["text"]
        hashes[start : start + HASH_BATCH] = np.fromiter(map(hash_text, normalised), np.uint64, normalised.len())
    distinct, order = np.unique(hashes, return_index=True)
    group_of_distinct = distinct.copy()
    for later, earlier in find_near_duplicates(texts, order).items():
        group_of_distinct[later] = group_of_distinct[earlier]  # pairs come sorted, so the earlier one's group is final
    return pl.DataFrame({"same": hashes, "group": group_of_distinct[np.searchsorted(distinct, hashes)]})


def find_near_duplicates(texts: pl.Series, order: np.ndarray) -> dict[int, int]:
    """Map each text that nearly repeats earlier ones to the first of them, both by their position in `order`.

    `order`: (distinct texts,) indexes of texts that differ, in the order in which they are compared.
    """
    if len(order) < 2:
        return {}
    words, offsets = _hash_words(texts, order)
    candidates = pl.concat([_band_candidates(words, offsets, band) for band in range(BANDS)])
    candidates = candidates.unique(["later", "earlier"])

    # Verify each pair by the exact Jaccard similarity of its words.
    verified = [candidates.clear()]
    for batch in candidates.iter_slices(VERIFY_BATCH):
        later = _word_lists(words, offsets, batch["later"].to_numpy())
        earlier = _word_lists(words, offsets, batch["earlier"].to_numpy())
        sizes = pl.DataFrame({"later": later, "earlier": earlier}).select(
            pl.col("later").list.set_intersection("earlier").list.len().alias("intersection"),
            pl.col("later").list.set_union("earlier").list.len().alias("union"),
        )
        verified.append(batch.filter(sizes["intersection"] >= SIMILARITY * sizes["union"]))
    pairs = pl.concat(verified)

    first = pairs.group_by("later").agg(pl.col("earlier").min()).sort("later")
    return dict(zip(first["later"].to_list(), first["earlier"].to_list(), strict=True))


def extract_words(texts: pl.Series) -> pl.DataFrame:
    """Return the columns `at`, a text's index, and `word`: words, or character bigrams in Chinese, Japanese and Thai."""
    text = pl.col("text")
    is_ascii = text.str.len_bytes() == text.str.len_chars()
    has_spaces = text.str.count_matches(" ", literal=True) * 12 >= text.str.len_chars()
    frame = texts.alias("text").to_frame().with_row_index("at").with_columns((is_ascii | has_spaces).alias("spaced"))
    words = frame.filter("spaced").select("at", text.str.extract_all(r"\w+").alias("word")).explode("word")
    characters = frame.filter(~pl.col("spaced")).select("at", text.str.split("").alias("word")).explode("word")
    bigrams = characters.with_columns(pl.concat_str("word", pl.col("word").shift(-1).over("at")).alias("word"))
    return pl.concat([words, bigrams]).drop_nulls("word")


def _hash_words(texts: pl.Series, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of all texts end to end, (words,) uint32, and where each text's begin, (texts + 1,) int64."""
    buffer = bytearray()  # grows in place: a list of parts and their concatenation would need the memory twice
    lengths = []
    for start in range(0, len(order), SIGNATURE_BATCH):
        part = (
            texts.gather(order[start : start + SIGNATURE_BATCH])
            .alias("text")
            .to_frame()
            .select(normalised_text())["text"]
        )
        words = extract_words(part)
        if not words["at"].is_sorted():  # texts with and without spaces come one after the other
            words = words.sort("at", maintain_order=True)
        buffer += (words["word"].hash(SEED) & 0xFFFF_FFFF).cast(pl.UInt32).to_numpy().tobytes()
        lengths.append(np.bincount(words["at"].to_numpy(), minlength=part.len()))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return np.frombuffer(buffer, dtype=np.uint32), offsets


def _band_candidates(words: np.ndarray, offsets: np.ndarray, band: int) -> pl.DataFrame:
    """Pair each text with the first one that shares the band's key, and with the one before it: linear, not quadratic.

    A text's key mixes the MinHashes of its words in this band. rensa computes the hashes; its own index of them takes
    130 MB more for a million texts than these keys.
    """
    import rensa  # deferred: only the data worker needs it

    texts = len(offsets) - 1
    keys = np.empty(texts, dtype=np.uint64)
    for start in range(0, texts, SIGNATURE_BATCH):
        ends = offsets[start : start + SIGNATURE_BATCH + 1]
        digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            words[ends[0] : ends[-1]].astype(np.uint64),
            (ends - ends[0]).astype(np.uint64),
            HASHES_PER_BAND,
            SEED + band,
        )
        # read one by one, which takes two thirds of the time that numpy needs for a list of lists
        hashes = np.fromiter(chain.from_iterable(digests.to_rows()), np.uint32)
        pairs_of_hashes = hashes.reshape(-1, HASHES_PER_BAND).view(np.uint64)
        keys[start : start + SIGNATURE_BATCH] = (pairs_of_hashes * _MIX).sum(axis=1, dtype=np.uint64)

    # Texts of fewer words are alike by chance.
    long_enough = np.flatnonzero(np.diff(offsets) >= MIN_WORDS)
    later = pl.col("later")
    shared = pl.DataFrame({"later": long_enough, "key": keys[long_enough]}).filter(pl.col("key").is_duplicated())
    with_first = shared.select("later", later.min().over("key").alias("earlier"))
    with_previous = shared.select("later", later.shift(1).over("key").alias("earlier"))
    return pl.concat([with_first, with_previous]).drop_nulls("earlier").filter(later > pl.col("earlier"))


def _word_lists(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> pl.Series:
    """Return the words of some texts as a column of lists, without copying them one by one."""
    lengths = np.diff(offsets)[rows]
    new_starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    positions = np.repeat(offsets[rows] - new_starts, lengths) + np.arange(lengths.sum())
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # Built from the buffers, because pyarrow.array imports pandas to see whether it was given something of it.
    arrays = [
        pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
        for kind, values in ((pa.int64(), ends), (pa.uint32(), words[positions]))
    ]
    lists = pl.from_arrow(pa.LargeListArray.from_arrays(*arrays))
    assert isinstance(lists, pl.Series)
    return lists
