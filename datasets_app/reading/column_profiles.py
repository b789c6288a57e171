"""What the first cells of a column are like: long texts, numbers, yes and no."""

from dataclasses import dataclass

import polars as pl

from datasets_app.reading.table import HEAD_ROWS

YES_NO = {"0", "1", "0.0", "1.0", "true", "false", "yes", "no", ""}
YES = {"1", "1.0", "true", "yes"}
_DATE_OR_LINK = r"^\s*(?i:https?://\S+\s*$|\d{4}-\d\d-\d\d|\w{3} \w{3} \d\d )"


@dataclass(frozen=True)
class Profile:
    """What the first cells of a column are like."""

    name: str
    filled: int
    different: int
    mean_length: float
    words: float  # of a cell, on average
    numbers: float  # share of cells
    decimals: float  # share of cells that are no whole numbers
    yes_no: bool
    dates_or_links: bool

    @property
    def is_textual(self) -> bool:
        """Whether it holds texts that differ, and no numbers, dates or links."""
        return self.words >= 2 and self.different > self.filled / 2 and self.numbers < 0.5 and not self.dates_or_links


def profile(name: str, cells: pl.Series) -> Profile:
    """Return what the first cells of a column are like."""
    filled = cells.filter(cells.str.strip_chars() != "").head(HEAD_ROWS)
    measured = (
        filled.to_frame("cell")
        .select(
            pl.len().alias("filled"),
            pl.col("cell").n_unique().alias("different"),
            pl.col("cell").str.len_chars().mean().fill_null(0).alias("mean_length"),
            # Chinese, Japanese and Korean have no spaces: about two characters are a word
            (pl.col("cell").str.count_matches(r"\s+\S") + 1).mean().fill_null(0).alias("words"),
            (pl.col("cell").str.count_matches(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]").mean() / 2)
            .fill_null(0)
            .alias("cjk"),
            pl.col("cell")
            .str.contains(r"^\s*[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?\s*$")
            .mean()
            .fill_null(0)
            .alias("numbers"),
            pl.col("cell").str.contains(r"^\s*[-+]?\d+([.,]0+)?\s*$").mean().fill_null(0).alias("whole"),
            pl.col("cell").str.contains(_DATE_OR_LINK).mean().fill_null(0).alias("dates_or_links"),
        )
        .row(0, named=True)
    )
    values = set(filled.unique().str.to_lowercase().str.strip_chars()) if measured["different"] < 20 else {""}
    return Profile(
        name=name,
        filled=measured["filled"],
        different=measured["different"],
        mean_length=measured["mean_length"],
        words=measured["words"] + measured["cjk"],
        numbers=measured["numbers"],
        decimals=measured["numbers"] - measured["whole"],
        yes_no=values != {""} and bool(values) and values <= YES_NO,
        dates_or_links=measured["dates_or_links"] > 0.5,
    )
