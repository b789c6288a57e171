"""What a stored conversation or preference says, for people, for searches and for checks.

Their forms are those of engine.data.conversations and engine.data.preferences.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from datasets_app.reading.characters import clean
from engine.data.conversations import PLAIN_TEXT, Conversation, UnusableRowError, read_conversation, read_stored
from engine.data.preferences import Preference, branches_of, read_preference
from web.errors import InvalidError

ROLE_NAMES = {
    "system": gettext_lazy("System"),
    "user": gettext_lazy("User"),
    "assistant": gettext_lazy("Assistant"),
    "tool": gettext_lazy("Tool"),
    PLAIN_TEXT: gettext_lazy("Text"),
}
ANSWER_NAMES = {"chosen": gettext_lazy("Chosen answer"), "rejected": gettext_lazy("Rejected answer")}
Stored = Conversation | Preference
_PARTS = ("prompt", "chosen", "rejected")  # of a preference
_QUESTION, _ANSWER = 110, 85  # characters of a summary


@dataclass(frozen=True, slots=True)
class Turn:
    """A message as people read it."""

    role: str
    title: str
    content: str
    tool_calls: list[str]


def load(text: str) -> Conversation:
    """Return the messages that a row stores; those of a preference one after the other."""
    stored: Stored = json.loads(text)
    return stored if isinstance(stored, list) else [message for part in _PARTS for message in stored[part]]


def branches(text: str) -> list[Conversation]:
    """Return the conversations that a row stores: one, or those with the chosen and with the rejected answer."""
    stored: Stored = json.loads(text)
    return [stored] if isinstance(stored, list) else branches_of(stored)


def has_same_answers(text: str) -> bool:
    """Return whether the chosen and the rejected answer of a preference are the same."""
    stored: Stored = json.loads(text)
    return isinstance(stored, dict) and stored["chosen"] == stored["rejected"]


def turns_of(text: str) -> list[Turn]:
    """Return the messages of a stored row."""
    stored: Stored = json.loads(text)
    parts = {"": stored} if isinstance(stored, list) else stored
    return [
        Turn(
            message["role"],
            str(ANSWER_NAMES.get(part) or ROLE_NAMES.get(message["role"], message["role"])),
            message["content"],
            tool_calls_of(message),
        )
        for part, messages in parts.items()
        for message in messages
    ]


def tool_calls_of(message: dict[str, Any]) -> list[str]:
    """Return the tool calls of a message as `name(arguments)`."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls]


def text_of(conversation: Conversation) -> str:
    """Return all that is said, a line break between two messages; of tool calls their names and arguments."""
    parts = [part for message in conversation for part in (message["content"], *tool_calls_of(message))]
    return "\n".join(part for part in parts if part)


def answers_of(conversation: Conversation) -> str:
    """Return all that the assistant says."""
    return text_of([message for message in conversation if message["role"] == "assistant"])


def shown_text(text: str) -> str:
    """Return what a stored conversation says, each message behind its role."""
    return "\n".join(
        f"{turn.title}: {' '.join(part for part in (turn.content, *turn.tool_calls) if part)}"
        for turn in turns_of(text)
    )


def with_summaries(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with what its conversations say in place of their JSON."""
    return row | {name: shown_text(row[name]) for name in ("text", "text_new") if name in row}


def with_contents(text: str, contents: dict[int, str]) -> str:
    """Return a row, which a form has sent, with other contents of its messages, by their index."""
    try:
        stored: Stored = json.loads(text)
        messages = stored if isinstance(stored, list) else [m for part in _PARTS for m in stored[part]]
        for index, content in contents.items():
            messages[index]["content"] = content
    except (ValueError, RecursionError, LookupError, TypeError):
        return text  # no row of ours; what checks the text says so
    return json.dumps(stored, ensure_ascii=False)


def summarise(question: str, answer: str) -> str:
    """Return the beginnings of what is asked and of what is answered; of a plain text its beginning."""
    if not answer:
        return _shorten(" ".join(question.split()), _QUESTION + _ANSWER)
    return f"{_shorten(' '.join(question.split()), _QUESTION)} → {_shorten(' '.join(answer.split()), _ANSWER)}"


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def clean_json(stored: Stored) -> str:
    """Return a row as it is stored: without NUL and unpaired surrogates, which JSON may hide in escapes."""
    for messages in stored.values() if isinstance(stored, dict) else [stored]:
        for message in messages:
            message["content"] = clean(message["content"]).replace("\r\n", "\n")
    return clean(json.dumps(stored, ensure_ascii=False))


def parse_edited(text: str, kind: str) -> str:
    """Return an edited row as it is stored; raise InvalidError if nothing can be learned from it."""
    try:
        return clean_json(_read_stored(_parse(text), kind))
    except UnusableRowError as error:
        reasons = {
            "no_messages": _("The row is no list of messages with text."),
            "unknown_role": _("A message has an unknown role. The roles are system, user, assistant and tool."),
            "no_answer": _("The conversation needs an answer of the assistant that is not empty."),
            "no_prompt": _("The row needs a prompt."),
            "no_text": _("The text is empty."),
            "broken_tool_call": _("A tool call is no name with arguments in JSON."),
        }
        raise InvalidError(reasons[error.reason], field="rows.text") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableRowError("no_messages") from None


def _read_stored(value: Any, kind: str) -> Stored:
    """Return the canonical form of what a row of this kind shall store. Raises UnusableRowError."""
    if kind != "preferences":
        return read_stored(value) if kind == "text" else read_conversation(value)
    parts: list[Any] = [value.get(part) for part in _PARTS] if isinstance(value, dict) else []
    if not parts or not all(isinstance(part, list) for part in parts):
        raise UnusableRowError("no_messages")
    return read_preference(*parts)


def repair_contents(text: str, repair: Callable[[str], str], kind: str) -> str:
    """Return a stored row with all its messages repaired; empty if no answer is left."""
    stored: Stored = json.loads(text)
    parts = stored if isinstance(stored, dict) else {"": stored}
    repaired = {
        name: [{**message, **_repair_values(message, repair)} for message in messages]
        for name, messages in parts.items()
    }
    try:
        return clean_json(_read_stored(repaired if isinstance(stored, dict) else repaired[""], kind))
    except UnusableRowError:
        return ""


def _repair_values(message: dict[str, Any], repair: Callable[[str], str]) -> dict[str, Any]:
    """Return the content of a message and the arguments of its tool calls, all their texts repaired."""
    changed: dict[str, Any] = {"content": repair(message["content"])}
    if "tool_calls" in message:
        calls = message["tool_calls"]
        changed["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _repair_all(call["function"]["arguments"], repair)}}
            for call in calls
        ]
    return changed


def _repair_all(value: Any, repair: Callable[[str], str]) -> Any:
    """Return a JSON value with all its texts repaired."""
    if isinstance(value, dict):
        return {name: _repair_all(part, repair) for name, part in value.items()}
    if isinstance(value, list):
        return [_repair_all(part, repair) for part in value]
    return repair(value) if isinstance(value, str) else value
