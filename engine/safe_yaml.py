"""Read YAML that a stranger sent. Its size and cost are bounded, and every mistake is a `NotYamlError` with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from engine.sentences import Sentence, gettext_noop, join_sentences

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
    """The text is not YAML within our limits; `line` counts from 1 and is None where the parser names no line."""

    def __init__(self, message: Sentence, line: int | None = None) -> None:
        where = [Sentence(gettext_noop("Look at line {line}."), line=line)] if line else []
        self.message = join_sentences([message, *where])
        super().__init__(self.message)
        self.line = line


def _error_at(node: yaml.Node | yaml.Event, message: Sentence) -> NotYamlError:
    return NotYamlError(message, node.start_mark.line + 1 if node.start_mark else None)


class _Loader(_Base):
    """SafeLoader, but a date is text: nothing of ours is a date, and a name may look like one."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _error_at(
                node, Sentence(gettext_noop("A number has more than {most} characters."), most=LONGEST_NUMBER)
            )
        try:
            return super().construct_object(node, deep)
        except VALUE_ERRORS as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > ENTRIES:
            raise _error_at(node, Sentence(gettext_noop("A mapping has more than {most} entries."), most=ENTRIES))


def read(text: str) -> Any:
    """Return the content as plain Python values; None for an empty text.

    Raises NotYamlError for what is not YAML, too large, too deep, has too many aliases or cannot be built.
    """
    content = text.encode("utf-8", "surrogatepass")
    _refuse_large(content)
    depth = 0
    aliases = 0
    try:
        # The parser's events first: they take time in proportion to the text, and nothing is built from them.
        for event in yaml.parse(content, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                aliases += 1
            if depth > DEPTH:
                raise _error_at(
                    event,
                    Sentence(gettext_noop("The configuration is nested more than {most} levels deep."), most=DEPTH),
                )
            if aliases > ALIASES:
                raise _error_at(
                    event, Sentence(gettext_noop("The configuration has more than {most} aliases."), most=ALIASES)
                )
        return yaml.load(content, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        position = getattr(error, "problem_mark", None)
        raise NotYamlError(
            Sentence(gettext_noop("The configuration is not valid YAML.")), position.line + 1 if position else None
        ) from error
    except RecursionError as error:
        raise NotYamlError(Sentence(gettext_noop("The configuration refers to itself."))) from error


def text_of(path: Path) -> str:
    """Return a file's text. A file that is too large is not read to its end.

    Raises NotYamlError if it is too large, OSError or UnicodeDecodeError if it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    _refuse_large(content)
    return content.decode("utf-8")


def _refuse_large(content: bytes) -> None:
    if len(content) > LIMIT:
        raise NotYamlError(
            Sentence(
                gettext_noop("The configuration is larger than {most} KiB. Leave out what is not needed."),
                most=LIMIT // 1024,
            )
        )
