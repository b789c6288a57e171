"""Detect the language of a text with lingua, among the languages that people are likely to bring.

Its quick mode, and a few of the 75 languages it knows, keep it fast and small enough to look at every dataset.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector

NAMES = ["ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "GERMAN", "FRENCH", "SPANISH"]


def detect_language(text: str) -> str:
    """Return the language's English name, or "Unknown" for a text without words."""
    detected = detector().detect_language_of(text)
    return detected.name.title() if detected else "Unknown"


@cache
def detector() -> LanguageDetector:
    """Return the one detector of this process; its models are loaded when they are first needed."""
    from lingua import Language, LanguageDetectorBuilder  # deferred: its models take a while to load

    languages = [getattr(Language, name) for name in NAMES]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
