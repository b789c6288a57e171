"""Which rows are in another language than most: lingua's fast mode with a few languages, on a sample of the rows."""

from functools import cache

import polars as pl

from engine.data.languages import detector

SAMPLE = 40_000  # rows; lingua detects the language of about 20,000 short texts a second on two cores
_FEWEST_CHARS = 40  # in a shorter text even people cannot always tell the language
_FEWEST_ROWS = 20
_LEAST_CONFIDENCE = 0.9
_NOISE = r"https?://\S+|[@#]\w+|&\w+;|\x{fffd}|_"
_WIDE = r"[\x{3040}-\x{30ff}\x{4e00}-\x{9fff}\x{ac00}-\x{d7af}]"  # a few of these say as much as a line of letters
_LEAST_SHARE = 0.02  # of the sample; fewer rows are more likely errors of the detector
TRADITIONAL = "Chinese (Traditional)"
SIMPLIFIED = "Chinese (Simplified)"


def long_enough(frame: pl.DataFrame) -> pl.Series:
    """Return the indexes of the rows whose text is long enough to detect its language."""
    text = pl.col("text")
    is_long = text.str.len_chars() >= _FEWEST_CHARS
    has_wide = text.str.contains(_WIDE)
    return frame.select(is_long | has_wide)["text"].arg_true()


def detect_in_sample(frame: pl.DataFrame) -> pl.DataFrame:
    """Return at most SAMPLE of the long enough rows, taken at equal distances.

    They get a column `language`, null where the detector is not sure.
    """
    rows = long_enough(frame)
    every = max(1, -(-rows.len() // SAMPLE))  # rounded up
    sample = frame[rows.gather_every(every)]
    return sample.with_columns(detect(sample["text"]))


def rows_in_other_languages(sample: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """Return the rows of a `detect_in_sample` in another language than most, and their share.

    Returns no rows if they are so few that they may be errors of the detector.
    """
    main = sample["language"].drop_nulls().mode().sort().first()
    others = sample.filter(pl.col("language") != pl.lit(main, dtype=pl.String))
    share = others.height / max(1, sample.height)
    if sample.height < _FEWEST_ROWS or share < _LEAST_SHARE:
        return others.clear(), 0.0
    return others, share


def detect(texts: pl.Series) -> pl.Series:
    """Return the language of each text, null where the detector is not sure. Chinese is split by its characters."""
    cleaned = texts.str.slice(0, 300).str.replace_all(_NOISE, " ")
    is_long = (cleaned.str.strip_chars().str.len_chars() >= _FEWEST_CHARS) | cleaned.str.contains(_WIDE)
    ranked = detector().compute_language_confidence_values_in_parallel(cleaned.to_list())
    best = [values[0] for values in ranked]
    names = [value.language.name.title() if value.value >= _LEAST_CONFIDENCE else None for value in best]
    frame = pl.DataFrame({"text": cleaned, "language": pl.Series(names, dtype=pl.String), "is_long": is_long})
    only_simplified, only_traditional = one_script_characters()
    simplified = pl.col("text").str.count_matches(f"[{only_simplified}]")
    traditional = pl.col("text").str.count_matches(f"[{only_traditional}]")
    is_simplified = pl.when(simplified > traditional).then(pl.lit(SIMPLIFIED))
    chinese = is_simplified.when(traditional > simplified).then(pl.lit(TRADITIONAL))
    language = pl.when(pl.col("language") == "Chinese").then(chinese).otherwise(pl.col("language"))
    return frame.select(pl.when("is_long").then(language).alias("language"))["language"]


@cache
def one_script_characters() -> tuple[str, str]:
    """Return the characters that only Simplified Chinese has, and those that only Traditional has, by CC-CEDICT."""
    from zhon import cedict

    simplified = set(cedict.simplified)
    traditional = set(cedict.traditional)
    return "".join(sorted(simplified - traditional)), "".join(sorted(traditional - simplified))


def main_language(texts: list[str]) -> str:
    """Return the English name of the language of most texts; an empty string if none can be detected."""
    beginnings = [text[:300] for text in texts]
    ranked = detector().compute_language_confidence_values_in_parallel(beginnings)
    detected = [best.language.name.title() for best, *_others in ranked if best.value >= _LEAST_CONFIDENCE]
    if not detected:
        return ""
    return max(set(detected), key=detected.count)
