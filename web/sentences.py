"""Say in the language of the reader what the engine has said in English."""

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext

from engine.sentences import Sentence


def translate(message: str) -> str:
    """Return a message of the engine in the reader's language; one that is no Sentence stays as it is."""
    return translate_packed(message.pack(), message) if isinstance(message, Sentence) else message


def translate_packed(packed: dict[str, Any] | None, english: str) -> str:
    """Return a stored sentence in the reader's language. One that was stored without its template stays English if it had arguments."""
    if not packed:
        return gettext(english) if english else ""
    arguments = {name: _translate_value(value) for name, value in packed["arguments"].items()}
    return gettext(packed["template"]).format(**arguments)


def _translate_value(value: Any) -> Any:
    return translate_packed(value, "") if isinstance(value, dict) else value


def join_translated(sentences: Iterable[str]) -> str:
    """Join sentences that are in the reader's language already; in Chinese no space stands between them."""
    text = ""
    for sentence in filter(None, sentences):
        text = gettext("{sentences} {next}").format(sentences=text, next=sentence) if text else sentence
    return text


def pack(message: str) -> dict[str, Any] | None:
    """Return what `translate_packed` needs later; None for a message that is no Sentence."""
    return message.pack() if isinstance(message, Sentence) else None
