"""Sentences that can be said in another language: what they say in English, and what that was made of.

The engine speaks English. Whoever shows its sentences to a person can translate the template, then put in the arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from numbers import Integral, Real
from typing import Any


def gettext_noop(template: str) -> str:
    """Mark a template for the translators; return it as it is."""
    return template


class Sentence(str):
    """An English sentence that remembers its template and arguments, some of which may be sentences themselves.

    The template is marked where it is written: `Sentence(gettext_noop("{count} texts were truncated."), count=3)`.
    """

    template: str
    arguments: dict[str, Any]

    def __new__(cls, template: str, **arguments: Any) -> Sentence:
        sentence = super().__new__(cls, template.format(**arguments))
        sentence.template = template
        sentence.arguments = arguments
        return sentence

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.template,), self.arguments

    def pack(self) -> dict[str, Any] | None:
        """Return template and arguments as JSON has them; None if it can't have them, because one is no finite number."""
        arguments = {name: _pack(value) for name, value in self.arguments.items()}
        return None if None in arguments.values() else {"template": self.template, "arguments": arguments}


def _pack(value: object) -> object:
    if isinstance(value, Sentence):
        return value.pack()
    if isinstance(value, Integral):
        return int(value)  # also the integers of numpy
    if isinstance(value, Real):
        return float(value) if isfinite(value) else None
    return value if value is None else str(value)


def join_sentences(sentences: Iterable[str]) -> str:
    """Return sentences one after the other; empty without any."""
    text = ""
    for sentence in sentences:
        text = Sentence(gettext_noop("{sentences} {next}"), sentences=text, next=sentence) if text else sentence
    return text


def join(parts: Iterable[str]) -> str:
    """Return parts as an enumeration; empty without any."""
    listed = ""
    for part in parts:
        listed = Sentence(gettext_noop("{parts}, {next}"), parts=listed, next=part) if listed else part
    return listed
