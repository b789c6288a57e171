"""Read YAML that somebody sent. Its size and cost are bounded, and every mistake is a `NotYamlError` with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

LIMIT = 64 * 1024  # bytes; a configuration with every field written out has 2 KiB
DEPTH = 20  # a configuration needs 4; parsers recurse, and libyaml's has no limit of its own
ALIASES = 100  # with ENTRIES they bound `<<`, which copies what it merges, level by level
ENTRIES = 10_000
LONGEST_NUMBER = 100  # characters; int("9" * 5000) raises ValueError, and 1:1:1… takes quadratic time
TIMESTAMP = "tag:yaml.org,2002:timestamp"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# PyYAML's constructors raise these for !!int abc, !!timestamp zz, !!bool x, a month 13, …
VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times faster; not every build has it


class NotYamlError(Exception):
    """The text is no YAML that we read; `line` counts from 1, where it is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(f"{message} Look at line {line}." if line else message)
        self.line = line


def _at(place: Any, message: str) -> NotYamlError:
    return NotYamlError(message, place.start_mark.line + 1)


class _Loader(_Base):  # one of two classes
    """SafeLoader, but a date is text: nothing of ours is a date, and a name may look like one."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != TIMESTAMP]
        for first, known in _Base.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _at(node, f"A number has more than {LONGEST_NUMBER} characters.")
        try:
            return super().construct_object(node, deep)
        except VALUE_ERRORS as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > ENTRIES:
            raise _at(node, f"A mapping has more than {ENTRIES} entries.")


def read(text: str) -> Any:
    """Return what the text says, as plain Python values; None where it says nothing."""
    content = text.encode("utf-8", "surrogatepass")
    _refuse_large(content)
    try:
        _refuse_excess(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotYamlError("The configuration is not valid YAML.", mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise NotYamlError("The configuration refers to itself.") from error


def text_of(path: Path) -> str:
    """Return a file's text. A file that is too large is not read to its end."""
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    _refuse_large(content)
    return content.decode("utf-8")


def _refuse_large(content: bytes) -> None:
    if len(content) > LIMIT:
        raise NotYamlError(f"The configuration is larger than {LIMIT // 1024} KiB. Leave out what is not needed.")


def _refuse_excess(content: bytes) -> None:
    """Look at the parser's events, which costs nothing but time in proportion to the text, before anything is built."""
    depth = aliases = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if depth > DEPTH:
            raise _at(event, f"The configuration is nested more than {DEPTH} levels deep.")
        if aliases > ALIASES:
            raise _at(event, f"The configuration has more than {ALIASES} aliases.")
