"""Why no answer can be held to a JSON schema, as sentences: by what llguidance says of real schemas."""

import pytest

from engine.sentences import Sentence
from engine.serve.grammars import schema_fault


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "wizard"}, "there is no type wizard."),
        ({"type": "string", "format": "rhyme"}, "there is no format rhyme."),
        ({"if": {}, "then": {}}, '"if", "then" can\'t be held to.'),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "oneOf can't be held to. Use anyOf."),
        ({"$ref": "#/nowhere"}, "$ref leads to /nowhere, which is not there."),
        (
            {"$ref": "http://localhost/x"},
            "$ref leads to http://localhost/x, which is not fetched. Put it into the schema.",
        ),
        ({"type": "string", "pattern": "("}, "a regular expression can't be read (unclosed group)."),
        ({"minimum": 5, "maximum": 1, "type": "integer"}, "nothing can fit it: minimum 5 is more than maximum 1."),
        ({"enum": []}, "nothing can fit it (anyOf is empty)."),
        ({"maxLength": "5"}, 'maxLength is "5", but must be of type positive integer.'),
        ({"const": "\ud800"}, "it contains invalid Unicode (an unpaired surrogate)."),
    ],
)
def test_reason_is_a_sentence_that_can_be_translated(schema, fault):
    told = schema_fault(schema)
    assert told == fault and isinstance(told, Sentence)


def test_reason_with_another_text_is_kept_and_no_reason_is_none():
    assert schema_fault({"type": 5}) == "type must be a string or array of strings"
    assert schema_fault({"type": "string"}) == ""
