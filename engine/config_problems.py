"""Say in plain words what is wrong with a configuration: Pydantic's errors as problems, each with its field."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.errors import Problem
from engine.sentences import Sentence, gettext_noop

MOST_PROBLEMS = 100
# What Pydantic's errors ask for, by their type; of other types its own sentence is shown.
REQUIREMENTS = {
    "greater_than": gettext_noop("must be greater than {gt}."),
    "greater_than_equal": gettext_noop("must be greater than or equal to {ge}."),
    "less_than": gettext_noop("must be less than {lt}."),
    "less_than_equal": gettext_noop("must be less than or equal to {le}."),
    "literal_error": gettext_noop("must be {expected}."),
    "string_pattern_mismatch": gettext_noop("must match the pattern {pattern}."),
    "string_unicode": gettext_noop("must be valid Unicode, without unpaired surrogates."),
    "invalid_key": gettext_noop("must be a name, written as text."),
    "int_type": gettext_noop("must be a valid integer."),
    "int_from_float": gettext_noop("must be a valid integer, got a number with a fractional part."),
    "int_parsing": gettext_noop("must be a valid integer, unable to parse string as an integer."),
    "int_parsing_size": gettext_noop("must be an integer with fewer digits."),
    "float_type": gettext_noop("must be a valid number."),
    "float_parsing": gettext_noop("must be a valid number, unable to parse string as a number."),
    "finite_number": gettext_noop("must be a finite number."),
    "bool_type": gettext_noop("must be true or false."),
    "bool_parsing": gettext_noop("must be a valid boolean, unable to interpret input."),
    "number_type": gettext_noop("must be neither true nor false."),
    "string_type": gettext_noop("must be a valid string."),
    "missing": gettext_noop("is required."),
    "dict_type": gettext_noop("must be an object."),
    "list_type": gettext_noop("must be a list."),
    "model_type": gettext_noop("must be an object."),
    "string_too_long": gettext_noop("must have a length of at most {max_length}."),
    "string_too_short": gettext_noop("must have a length of at least {min_length}."),
    "too_long": gettext_noop("must have a length of at most {max_length}."),
    "too_short": gettext_noop("must have a length of at least {min_length}."),
}
LONGEST_SHOWN = 200  # characters of a given value in an error; names have 200 at most


class ContradictionsError(ValueError):
    """Carries problems through Pydantic, which passes on the ValueErrors that validators raise."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(" ".join(problem.message for problem in problems))
        self.problems = problems


def list_problems(
    error: ValidationError, configuration: type[BaseModel], allowed_values: Mapping[str, str]
) -> list[Problem]:
    """Return every problem of a configuration, MOST_PROBLEMS at most.

    allowed_values: by field, what it allows, where Pydantic's own message says too little.
    """
    problems: list[Problem] = []
    for details in error.errors(include_url=False):
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ContradictionsError):
            problems += cause.problems
            continue
        problem = describe_problem(details, configuration, allowed_values)
        # A field that allows several types has an error for each of them; the first is enough.
        if all(problem.field != reported.field for reported in problems):
            problems.append(problem)
        # A request with 10,000 unknown fields must not cost a search for each name.
        if len(problems) >= MOST_PROBLEMS:
            break
    return problems


def describe_problem(
    details: ErrorDetails, configuration: type[BaseModel], allowed_values: Mapping[str, str]
) -> Problem:
    """Translate one error of Pydantic: name the field, say what it allows and which value was given."""
    # A path is at most two names deep; what follows them are list indexes, keys or the alternatives of a union.
    path = [str(part)[:LONGEST_SHOWN] for part in details["loc"]]
    field_info = configuration.model_fields.get(path[0])
    annotation = field_info.annotation if field_info else None
    section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    in_section = section is not None and len(path) > 1
    field = ".".join(path[: 2 if in_section else 1])

    if details["type"] == "extra_forbidden":
        name = path[1] if in_section else path[0]
        names = list(section.model_fields if section and in_section else configuration.model_fields)
        similar = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = Sentence(gettext_noop("Known fields: {names}."), names=", ".join(names))
        if similar:
            hint = Sentence(gettext_noop("Did you mean {name}?"), name=field.removesuffix(name) + similar[0])
        sentence = Sentence(gettext_noop("{field} is not a field of the configuration. {hint}"), field=field, hint=hint)
        return Problem(field, sentence, "unknown_field")

    message = allowed_values.get(field) or describe_requirement(details)
    value = details["input"]
    if isinstance(value, str | int | float | bool) and "refusal" not in details.get("ctx", {}):
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
        message = Sentence(gettext_noop("{requirement} Given: {value}."), requirement=message, value=shown)
    return Problem(field, Sentence(gettext_noop("{field}: {reason}"), field=field, reason=message), details["type"])


def describe_requirement(details: ErrorDetails) -> str:
    """Return what a value must be, after Pydantic's own error."""
    context = dict(details.get("ctx", {}))
    if "refusal" in context:
        return cast(str, context["refusal"])  # a Sentence
    if "expected" in context:
        # Pydantic names choices such as 'a', 'b' or 'c'; taken apart, they can be said in another language.
        choices, either, last = context["expected"].rpartition(" or ")
        if either:
            context["expected"] = Sentence(gettext_noop("{choices} or {last}"), choices=choices, last=last)
    if details["type"] in REQUIREMENTS:
        return Sentence(REQUIREMENTS[details["type"]], **context)
    message = details["msg"].removeprefix("Value error, ").rstrip(".") + "."
    if message.startswith("Input should be "):
        message = "must be " + message.removeprefix("Input should be ")
    return message
