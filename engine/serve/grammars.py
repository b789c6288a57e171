"""Grammars that answers can be held to, as text for llguidance. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OBJECT: dict[str, Any] = {"type": "object"}  # the schema of any JSON object
WHITESPACE = r"[ \t\r\n]{0,20}"  # unbounded, a small model may write nothing else


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON that a schema describes. Nothing that a schema refers to is fetched."""
    from llguidance import LLMatcher  # deferred: most answers are free text

    return str(LLMatcher.grammar_from_json_schema(dict(schema), overrides={"whitespace_pattern": WHITESPACE}))


def schema_fault(schema: Mapping[str, Any]) -> str:
    """Return why no answer can be held to a schema; empty if one can."""
    from llguidance import LLMatcher

    try:
        return str(LLMatcher.validate_grammar(schema_grammar(schema)))
    except ValueError:
        return "It contains invalid Unicode (an unpaired surrogate)."
