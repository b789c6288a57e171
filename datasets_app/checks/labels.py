"""What is wrong with the labels as such: several spellings of one, marks that mean "no label", scores in place of labels."""

import contextlib
import re
import unicodedata
from collections.abc import Iterable

NO_LABEL = frozenset(
    {
        "null",
        "nil",
        "none",
        "n/a",
        "#n/a",
        "n.a.",
        "na",
        "<na>",
        "nan",
        "nat",
        "-",
        "--",
        "–",
        "—",
        "?",
        "??",
        "undefined",
    }
)
_TRUTH_VALUES = {"true": "1", "false": "0"}
_SCORES = 10  # different numbers with decimals; ratings such as 4.5 have fewer


def normalised_label(label: str) -> str:
    """Return what labels that look alike have in common: case, white space, punctuation at the end, Unicode composition.

    1, 1.0 and true are one label, 0, 0.0 and false another.
    """
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    text = "".join(character for character in text if unicodedata.category(character) != "Cf") or text
    text = _TRUTH_VALUES.get(text, text)
    with contextlib.suppress(ValueError):
        number = float(text)
        if number == number and abs(number) < 1e15:  # not NaN; beyond, floats skip whole numbers
            return f"{number:.15g}"
    words = re.sub(r"[\s_-]+", " ", text.rstrip(" .,;:!?。，；：！？")).strip()
    return words or text


def similar_labels(labels: dict[str, int]) -> list[list[str]]:
    """Group labels ({label: rows}) that look alike; in each group the one to keep stands first."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(normalised_label(label), []).append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    for group in alike:  # the most frequent first, then the plainest spelling
        group.sort(
            key=lambda label: (
                -labels[label],
                not unicodedata.is_normalized("NFC", label),
                len(label),
                len(label) > 1 and label.isupper(),
                label,
            )
        )
    return alike


def no_labels(labels: dict[str, int]) -> list[str]:
    """Return the labels that usually mean that a row has none; empty if fewer than two labels would remain."""
    marks = [label for label in labels if label.strip().casefold() in NO_LABEL]
    if "+" in labels:  # the other one of two labels, and no mark
        marks = [label for label in marks if label not in ("-", "–", "—")]
    return marks if len(labels) - len(marks) >= 2 else []


def are_scores(labels: Iterable[str]) -> bool:
    """Return whether the labels are numbers, many of them with decimals."""
    try:
        numbers = [
            float(label.replace(",", ".")) for label in labels if label and label.strip().casefold() not in NO_LABEL
        ]
    except ValueError:
        return False
    return sum(not number.is_integer() for number in numbers) >= _SCORES
