"""Detect the language of a text with lingua.

Its quick mode keeps it fast and small enough to look at every dataset.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector

# For single texts, which are often short: the fewer languages, the fewer mistakes. Datasets are checked with all of them.
NAMES = ["ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "GERMAN", "FRENCH", "SPANISH"]


def detect_language(text: str) -> str:
    """Return the language's English name, or "Unknown" for a text without words."""
    detected = detector().detect_language_of(text)
    return detected.name.title() if detected else "Unknown"


@cache
def detector() -> LanguageDetector:
    """Return the one detector of this process; its models are loaded when they are first needed."""
    return _build(NAMES)


@cache
def detector_of_all_languages() -> LanguageDetector:
    """Return the detector for datasets: a text in a language that it doesn't know is taken for one that it knows.

    It takes 100 MB, and eight times as long for a text.
    """
    return _build([])


def _build(names: list[str]) -> LanguageDetector:
    """Build a detector of these languages, or of all but Latin, which short texts full of names are taken for."""
    from lingua import Language, LanguageDetectorBuilder  # deferred: its models take a while to load

    languages = [getattr(Language, name) for name in names] or [*(Language.all() - {Language.LATIN})]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
