"""Which rows are in another language than most: lingua's quick mode among a few languages, on a sample of rows."""

import re
from functools import cache
from typing import Any

import polars as pl

SAMPLE = 1500  # rows; lingua reads about 15,000 short texts a second
_FEWEST_CHARS = 40  # below, even people cannot always tell
_SURE = 0.9
_NOISE = re.compile(r"https?://\S+|[@#]\w+|&\w+;|\ufffd|_")
_SHARE = 0.02  # of the sample; fewer are more likely mistakes of the detector


def strangers(frame: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """Rows of the sample in another language, with a column `language`, and their share of the sample's rows."""
    wide = pl.col("text").str.contains(r"[\x{3040}-\x{30ff}\x{4e00}-\x{9fff}\x{ac00}-\x{d7af}]")
    readable = frame.filter((pl.col("text").str.len_chars() >= _FEWEST_CHARS) | wide)
    step = max(1, readable.height // SAMPLE)
    sample = readable.gather_every(step).head(SAMPLE)
    if sample.height < 20:
        return sample.clear(), 0.0
    languages = pl.Series("language", [_language(text[:300]) for text in sample["text"]], dtype=pl.String)
    main = languages.drop_nulls().mode().first() if languages.drop_nulls().len() else None
    found = sample.with_columns(languages).filter(pl.col("language") != main)
    share = found.height / sample.height
    return (found, share * readable.height / frame.height) if share >= _SHARE else (found.clear(), 0.0)


def _language(text: str) -> str | None:
    """The language's name, or None where the detector is not sure."""
    words = _NOISE.sub(" ", text)
    wide = any("\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af" for c in words)
    if len(words.strip()) < _FEWEST_CHARS and not wide:
        return None
    ranked = _detector().compute_language_confidence_values(words)
    return ranked[0].language.name.title() if ranked and ranked[0].value >= _SURE else None


@cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    names = ("ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "SPANISH", "FRENCH", "GERMAN")
    few = [getattr(Language, name) for name in names]
    return LanguageDetectorBuilder.from_languages(*few).with_low_accuracy_mode().build()


def spoken(texts: list[str]) -> str:
    """The language of most of the texts by its English name; empty where none can be told."""
    found = [language for text in texts if (language := _language(text[:300]))]
    return max(set(found), key=found.count) if found else ""
