"""Which rows are in another language than most: lingua's quick mode among a few languages, on a sample of rows."""

from functools import cache

import polars as pl

from engine.data.languages import detector

SAMPLE = 40_000  # rows; lingua tells about 20,000 short texts a second on two cores
_FEWEST_CHARS = 40  # below, even people cannot always tell
_FEWEST_ROWS = 20
_SURE = 0.9
_NOISE = r"https?://\S+|[@#]\w+|&\w+;|\x{fffd}|_"
_WIDE = r"[\x{3040}-\x{30ff}\x{4e00}-\x{9fff}\x{ac00}-\x{d7af}]"  # a few of these say as much as a line of letters
_SHARE = 0.02  # of the sample; fewer are more likely mistakes of the detector
TRADITIONAL, SIMPLIFIED = "Chinese (Traditional)", "Chinese (Simplified)"


def readable(frame: pl.DataFrame) -> pl.Series:
    """The indexes of rows that are long enough to tell."""
    text = pl.col("text")
    return frame.select((text.str.len_chars() >= _FEWEST_CHARS) | text.str.contains(_WIDE))["text"].arg_true()


def told_of(frame: pl.DataFrame) -> pl.DataFrame:
    """A sample of the readable rows with a column `language`, null where the detector is not sure."""
    rows = readable(frame)
    sample = frame[rows.gather_every(max(1, -(-rows.len() // SAMPLE)))]
    return sample.with_columns(languages(sample["text"]))


def strangers(told: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """The sample's rows in another language than most, and their share; none where they are so few that it may err."""
    usual = told["language"].drop_nulls().mode().sort().first()
    found = told.filter(pl.col("language") != pl.lit(usual, dtype=pl.String))
    share = found.height / max(1, told.height)
    return (found, share) if told.height >= _FEWEST_ROWS and share >= _SHARE else (found.clear(), 0.0)


def languages(texts: pl.Series) -> pl.Series:
    """Each text's language, null where the detector is not sure; Chinese by its characters Traditional or Simplified."""
    words = texts.str.slice(0, 300).str.replace_all(_NOISE, " ")
    long = (words.str.strip_chars().str.len_chars() >= _FEWEST_CHARS) | words.str.contains(_WIDE)
    ranked = detector().compute_language_confidence_values_in_parallel(words.to_list())
    best = [values[0] for values in ranked]
    names = pl.Series([b.language.name.title() if b.value >= _SURE else None for b in best], dtype=pl.String)
    frame = pl.DataFrame({"words": words, "language": names, "long": long})
    simplified = pl.when(_more(simplified_only(), traditional_only())).then(pl.lit(SIMPLIFIED))
    chinese = simplified.when(_more(traditional_only(), simplified_only())).then(pl.lit(TRADITIONAL))
    told = pl.when(pl.col("language") == "Chinese").then(chinese).otherwise(pl.col("language"))
    return frame.select(pl.when("long").then(told).alias("language"))["language"]


def _more(one: str, other: str) -> pl.Expr:
    """Whether a text has more characters of the one kind than of the other."""
    return pl.col("words").str.count_matches(f"[{one}]") > pl.col("words").str.count_matches(f"[{other}]")


@cache
def simplified_only() -> str:
    """Characters that Traditional Chinese does not have, by CC-CEDICT."""
    from zhon import cedict

    return "".join(sorted(set(cedict.simplified) - set(cedict.traditional)))


@cache
def traditional_only() -> str:
    """Characters that Simplified Chinese does not have."""
    from zhon import cedict

    return "".join(sorted(set(cedict.traditional) - set(cedict.simplified)))


def spoken(texts: list[str]) -> str:
    """The language of most of the texts by its English name; empty where none can be told."""
    ranked = detector().compute_language_confidence_values_in_parallel([text[:300] for text in texts])
    found = [best.language.name.title() for best, *_others in ranked if best.value >= _SURE]
    return max(set(found), key=found.count) if found else ""
