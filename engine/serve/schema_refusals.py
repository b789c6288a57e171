"""Say in sentences why llguidance can't hold an answer to a JSON schema. It has no codes for its reasons, only English texts."""

from __future__ import annotations

import re

from engine.sentences import Sentence, gettext_noop

# What llguidance 1 says, and a sentence with the parts of it. Other reasons are given as they are.
REASONS = [
    (r"Invalid type: (?P<name>.+)", gettext_noop("there is no type {name}.")),
    (r"Unknown format: (?P<name>.+)", gettext_noop("there is no format {name}.")),
    (r"Unimplemented keys: \[(?P<names>.+)\]", gettext_noop("{names} can't be held to.")),
    (r"oneOf constraints are not supported\b.*", gettext_noop("oneOf can't be held to. Use anyOf.")),
    (r"Pointer '(?P<place>.*)' does not exist", gettext_noop("$ref leads to {place}, which is not there.")),
    (
        r"Resource '(?P<address>.+)' is not present in a registry\b.*",
        gettext_noop("$ref leads to {address}, which is not fetched. Put it into the schema."),
    ),
    (r"regex parse error:.*error: (?P<fault>.+)", gettext_noop("a regular expression can't be read ({fault}).")),
    (
        r"Unsatisfiable schema: (?P<name>\w+) \((?P<low>.+)\) is greater than (?P<other>\w+) \((?P<high>.+)\)",
        gettext_noop("nothing can fit it: {name} {low} is more than {other} {high}."),
    ),
    (r"Unsatisfiable schema: (?P<fault>.+)", gettext_noop("nothing can fit it ({fault}).")),
    (
        r"Expected (?P<kind>.+) for '(?P<name>.+)', got (?P<value>.+)",
        gettext_noop("{name} is {value}, but must be of type {kind}."),
    ),
]


LONGEST_PART = 200  # characters that are repeated of what was sent


def explain_reason(reason: str) -> str:
    """Return a reason of llguidance as a sentence that can be translated, or as it is if its text is another one."""
    for pattern, sentence in REASONS:
        if match := re.fullmatch(pattern, reason.strip(), re.DOTALL):
            return Sentence(sentence, **{name: part[:LONGEST_PART] for name, part in match.groupdict().items()})
    return reason[:LONGEST_PART]
