"""Cut a file of plain text into documents."""

import re
from collections.abc import Iterator

LONGEST_PART = 3_000  # characters, about 700 tokens of English
SHORTEST_PART = 500
FEWEST_PARTS = 20  # of a short file, so that some can be held out
_MARK = re.compile(r"^[ \t]*<\|endoftext\|>[ \t]*$|\f", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n(?:[ \t]*\n)+")
_LINE = re.compile(r"\n")


def split_documents(text: str) -> list[str]:
    """Return the documents of a text: those between marks (a line <|endoftext|>, or a form feed), else parts of it.

    A part ends with a paragraph, where there are any, or with a line, and has about 3,000 characters, less in a short file.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    documents = _filled(_MARK.split(text))
    if len(documents) > 1:
        return documents
    length = max(SHORTEST_PART, min(LONGEST_PART, len(text) // FEWEST_PARTS))
    parts = _filled(_parts(text, _PARAGRAPH, length))
    return parts if len(parts) > 1 else _filled(_parts(text, _LINE, length))


def _parts(text: str, end: re.Pattern[str], length: int) -> Iterator[str]:
    start = 0
    for match in end.finditer(text):
        if match.start() - start >= length:
            yield text[start : match.start()]
            start = match.end()
    yield text[start:]


def _filled(parts: "list[str] | Iterator[str]") -> list[str]:
    return [part.strip("\n") for part in parts if part.strip()]
