"""What experiments, datasets and registered models may be called, in any script.

Their names are part of addresses, commands and files, and predictions find an experiment or a model by its name. So all three
follow one rule. A name is stored in Unicode's composed form (NFC), `name_key` tells which names count as the same, and
`folder_name` is the name on disk, in ASCII.
"""

import hashlib
import re
import unicodedata

from engine.sentences import Sentence, gettext_noop, join_sentences

LONGEST_NAME = 80  # characters
LARGEST_NAME = 240  # bytes in UTF-8: file systems hold 255 in the name of a file, which has an ending too
LONGEST_KEY = 4 * LONGEST_NAME  # because of ligatures: the NFKC form of one letter has up to four
MOST_MARKS = 4  # one on another, as in UTS 39, section 5.4: more cover the lines above and below
PUNCTUATION = "-_."
# Letters and marks that show nothing (Default_Ignorable_Code_Point), such as the fillers of Hangul and variation selectors.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

EMPTY = gettext_noop("Enter a name.")
TOO_LONG = gettext_noop("A name has at most {characters} characters and {bytes} bytes in UTF-8.")
SPACE = gettext_noop(
    "A name cannot contain spaces. Use letters and digits of any script, hyphens, underscores and dots."
)
CHARACTER = gettext_noop(
    "A name cannot contain {character}. Use letters and digits of any script, hyphens, underscores and dots."
)
START = gettext_noop("A name starts with a letter or a digit.")
DOTS = gettext_noop("A name has no two dots in a row and does not end with a dot.")
MARKS = gettext_noop("A letter of a name has at most {marks} marks.")
NEAREST = gettext_noop("“{name}” can be used.")
QUOTED = gettext_noop("“{character}”")


def normalise_name(name: str) -> str:
    """Return the form in which a name is stored: the same letters typed on another machine may be other code points."""
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """Return the key of a name. Names that differ only in case, width or compatibility forms have the same key (D146)."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", name).casefold()).casefold()
    return unicodedata.normalize("NFKC", folded)


def explain_refusal(name: str) -> str:
    """Return why a name is refused and which one nearest to it is not, as a Sentence; empty if it is allowed."""
    problem = find_problem(name)
    if problem is None:
        return ""
    nearest = nearest_name(name)
    return join_sentences([problem, Sentence(NEAREST, name=nearest)] if nearest else [problem])


def find_problem(name: str) -> Sentence | None:
    """Return why a new experiment, dataset or registered model may not have this name, as far as its characters go."""
    name = normalise_name(name)
    if not name:
        return Sentence(EMPTY)
    if len(name) > LONGEST_NAME or len(name.encode("utf-8", "surrogatepass")) > LARGEST_NAME:
        return Sentence(TOO_LONG, characters=LONGEST_NAME, bytes=LARGEST_NAME)
    for character in name:
        if character == " ":
            return Sentence(SPACE)
        if not is_allowed(character):
            return Sentence(CHARACTER, character=describe_character(character))
    if unicodedata.category(name[0])[0] not in "LN":
        return Sentence(START)
    if ".." in name or name.endswith("."):  # they lead out of folders, and Windows drops the last one
        return Sentence(DOTS)
    if limit_marks(name) != name:
        return Sentence(MARKS, marks=MOST_MARKS)
    return None


def is_allowed(character: str) -> bool:
    """Return whether names may have this character, which no compatibility form turns into one that they may not have."""
    return all(each in PUNCTUATION or is_of_words(each) for each in character + name_key(character))


def is_of_words(character: str) -> bool:
    """Return whether this is a letter, a digit or a visible mark, of any script."""
    category = unicodedata.category(character)
    return (category[0] in "LN" or category in ("Mn", "Mc")) and not INVISIBLE.match(character)


def describe_character(character: str) -> str:
    """Return a character in quotation marks, or its number and its name in Unicode if it cannot be seen."""
    if unicodedata.category(character)[0] in "CMZ" or INVISIBLE.match(character):
        return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
    return Sentence(QUOTED, character=character)


def limit_marks(name: str) -> str:
    """Return a name without the marks of a letter that are too many."""
    kept: list[str] = []
    for character in name:
        letter_and_marks = kept[-MOST_MARKS:]
        is_mark = unicodedata.category(character) == "Mn"
        if not (is_mark and len(kept) >= MOST_MARKS and all(unicodedata.category(c) == "Mn" for c in letter_and_marks)):
            kept.append(character)
    return "".join(kept)


def nearest_name(text: str) -> str:
    """Return a text as an allowed name: hyphens in place of what names may not have; empty if nothing of it is left."""
    if find_problem(text) is None:
        return normalise_name(text)
    characters = []
    for character in normalise_name(text[: 10 * LONGEST_NAME]):
        if is_allowed(character):
            characters.append(character)
        elif unicodedata.category(character)[0] not in "CM" and not INVISIBLE.match(character):
            characters.append("-")  # what cannot be seen separates no words
    name = re.sub(r"-{2,}|\.{2,}", "-", limit_marks("".join(characters)))
    while name and unicodedata.category(name[0])[0] not in "LN":
        name = name[1:]
    return shorten_name(name).rstrip(PUNCTUATION)


def shorten_name(name: str, room: int = 0) -> str:
    """Return the beginning of a name that leaves room for so many further ASCII characters."""
    in_bytes = name[: LONGEST_NAME - room].encode()[: LARGEST_NAME - room]
    return in_bytes.decode(errors="ignore").rstrip(".")


def folder_name(name: str) -> str:
    """Return the name of an experiment's folder: its own if that is ASCII, else its ASCII letters and a hash.

    No name has a tilde, so the folder of one name never is that of another.
    """
    name = normalise_name(name)
    if name.isascii():
        return name
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", letters)[:40].strip("-")
    return f"{words or 'run'}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
