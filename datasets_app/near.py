"""Near-duplicate texts by MinHash (rensa): candidates by locality-sensitive hashing, then proven by the words."""

from typing import Any

import polars as pl

SIMILARITY = 0.8  # Jaccard index of the two texts' words (or, in Chinese and the like, pairs of characters)
_PERMUTATIONS, _BANDS, _SEED = 64, 8, 42
_MOST_CANDIDATES = 50  # per text; a boilerplate sentence would otherwise make each pair of thousands
_FEWEST_WORDS = 4
_BATCH = 20_000  # texts


def near_duplicates(texts: pl.Series) -> dict[int, int]:
    """For each text that nearly repeats an earlier one: its index, and the index of that one. Texts are unique."""
    import rensa

    suspects = _suspects(texts)
    words = _words(texts.gather(suspects))
    hashes = rensa.RMinHash.from_token_sets(words, _PERMUTATIONS, _SEED)
    index = _index()
    index.insert_many(hashes)
    sets = [frozenset(w) for w in words]
    found = {}
    for here, candidates in enumerate(index.query_all(hashes)):
        earlier = sorted(c for c in candidates if c < here)[:_MOST_CANDIDATES]
        partner = next((c for c in earlier if _jaccard(sets[c], sets[here]) >= SIMILARITY), None)
        if partner is not None and len(sets[here]) >= _FEWEST_WORDS:
            found[suspects[here]] = suspects[partner]
    return found


def _suspects(texts: pl.Series) -> list[int]:
    """Indices of texts that share a band of hashes with another. Words are held for one batch at a time."""
    import rensa

    index, matrices = _index(), []
    for start in range(0, texts.len(), _BATCH):
        words = _words(texts[start : start + _BATCH])
        matrices.append(rensa.RMinHash.digest_matrix_from_token_sets(words, _PERMUTATIONS, _SEED))
        index.insert_matrix(matrices[-1], start)
    flags = (flag for matrix in matrices for flag in index.query_duplicate_flags_matrix(matrix))
    return [i for i, flag in enumerate(flags) if flag]


def _index() -> Any:
    import rensa

    return rensa.RMinHashLSH(SIMILARITY, _PERMUTATIONS, _BANDS)


def _words(texts: pl.Series) -> list[list[str]]:
    """Words; where a text has no spaces to speak of (Chinese, Japanese, Thai) overlapping pairs of characters."""
    frame = texts.alias("text").to_frame()
    spaced = (pl.col("text").str.count_matches(" ") * 12 >= pl.col("text").str.len_chars()) | ~pl.col(
        "text"
    ).str.contains(r"[^\x00-\x{24f}]")
    words = frame.with_columns(spaced.alias("spaced"), pl.col("text").str.extract_all(r"\w+").alias("words"))
    result: list[list[str]] = words["words"].to_list()
    for i in words.with_row_index().filter(~pl.col("spaced"))["index"]:
        text = texts[i]
        result[i] = [text[j : j + 2] for j in range(len(text) - 1)]
    return result


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / (len(a | b) or 1)
