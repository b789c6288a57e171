"""Which language a text is in, by lingua, among the languages that people are likely to bring."""

from functools import cache
from typing import Any

NAMES = ["ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "GERMAN", "FRENCH", "SPANISH"]


def language(text: str) -> str:
    """The language's English name, or "Unknown" for a text without words."""
    found = _detector().detect_language_of(text)
    return found.name.title() if found else "Unknown"


@cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    languages = [getattr(Language, name) for name in NAMES]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
