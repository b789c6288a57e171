"""Grammars that answers can be held to, as text for llguidance. Importing this module imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.sentences import Sentence, gettext_noop
from engine.serve.schema_refusals import explain_reason

OBJECT: dict[str, Any] = {"type": "object"}  # the schema of any JSON object
WHITESPACE = r"[ \t\r\n]{0,20}"  # unbounded, a small model may write nothing else


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON that a schema describes. Nothing that a schema refers to is fetched."""
    from llguidance import LLMatcher  # deferred: most answers are free text

    return str(LLMatcher.grammar_from_json_schema(with_bounded_space(schema)))


def enclosed_grammar(begin: str, schema: Mapping[str, Any], end: str) -> str:
    """Return the grammar of the JSON that a schema describes between two texts."""
    content = json.dumps(with_bounded_space(schema))
    return f"%llguidance {{}}\nstart: {json.dumps(begin)} content {json.dumps(end)}\ncontent: %json {content}"


def with_bounded_space(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that also says how much white space there may be between the parts of its JSON."""
    return {**schema, "x-guidance": {"whitespace_pattern": WHITESPACE}}


def schema_fault(schema: Mapping[str, Any]) -> str:
    """Return why no answer can be held to a schema; empty if one can."""
    from llguidance import LLMatcher

    try:
        return explain_reason(str(LLMatcher.validate_grammar(schema_grammar(schema))))
    except ValueError:
        return Sentence(gettext_noop("it contains invalid Unicode (an unpaired surrogate)."))
