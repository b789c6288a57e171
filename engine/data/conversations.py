"""Conversations in one canonical form: a list of messages {role, content} and, where there are any, tool_calls.

Read from OpenAI's `messages`, ShareGPT's `conversations`, a prompt with its completion, or plain text, which is one message of
the role "text". As the text of a row, a conversation is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]
Conversation = list[Message]
PLAIN_TEXT = "text"  # the role of a text that nobody says to anybody: all of it is learned
ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
}
DEEPEST = 50  # levels of lists and objects in the arguments of a tool call; Python reads and writes fewer than 1,000
KEPT = ("name", "tool_call_id")  # further fields of a message that chat templates read


class UnusableRowError(ValueError):
    """A row is no conversation to learn from; `reason` is a key of engine.data.labelled_rows.SKIP_REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_conversation(value: object) -> Conversation:
    """Return the canonical form of a list of messages, or of such a list as JSON, up to the assistant's last message.

    Raises UnusableRowError.
    """
    conversation = read_messages(_parse_json(value, "no_messages") if isinstance(value, str) else value)
    answers = [index for index, message in enumerate(conversation) if message["role"] == "assistant"]
    if not answers:
        raise UnusableRowError("no_answer")
    return conversation[: answers[-1] + 1]


def read_stored(value: object) -> Conversation:
    """Return the canonical form of a conversation or a plain text, or of either as JSON. Raises UnusableRowError."""
    messages = _parse_json(value, "no_messages") if isinstance(value, str) else value
    first = messages[0] if isinstance(messages, list) and len(messages) == 1 else None
    if isinstance(first, Mapping) and first.get("role") == PLAIN_TEXT:
        return from_text(_read_content(first.get("content")))
    return read_conversation(messages)


def read_messages(value: object) -> Conversation:
    """Return the canonical form of a list of messages, whoever has the last word. Raises UnusableRowError."""
    if not isinstance(value, list) or not value or not all(isinstance(message, Mapping) for message in value):
        raise UnusableRowError("no_messages")
    return [_read_message(message) for message in value]


def from_prompt(prompt: str, completion: str) -> Conversation:
    """Return the conversation of a prompt and its completion. Raises UnusableRowError for an empty completion."""
    return read_conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}])


def from_text(text: str) -> Conversation:
    """Return a plain text as a conversation. Raises UnusableRowError if it is empty."""
    if not text.strip():
        raise UnusableRowError("no_text")
    return [{"role": PLAIN_TEXT, "content": text}]


def to_json(content: Conversation | dict[str, Conversation]) -> str:
    """Return a conversation or a preference as the text of a row; `json.loads` reads it back."""
    return json.dumps(content, ensure_ascii=False)


def question_of(conversation: Conversation) -> str:
    """Return what the conversation is about, by which rows are compared: all that users say, or the plain text."""
    questions = [message["content"] for message in conversation if message["role"] in ("user", PLAIN_TEXT)]
    return "\n".join(questions) or conversation[0]["content"]


def _read_message(message: Mapping[str, Any]) -> Message:
    role = ROLES.get(str(message.get("role", message.get("from"))))
    if role is None:
        raise UnusableRowError("unknown_role")
    read: Message = {"role": role, "content": _read_content(message.get("content", message.get("value")))}
    tool_calls = [_read_tool_call(call) for call in message.get("tool_calls") or ()]
    if tool_calls:
        read["tool_calls"] = tool_calls
    elif role == "assistant" and not read["content"].strip():
        raise UnusableRowError("no_answer")
    return read | {name: message[name] for name in KEPT if isinstance(message.get(name), str)}


def _read_content(content: object) -> str:
    """Return the text of a message, which may be a list of parts as OpenAI has them."""
    if content is None:
        return ""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UnusableRowError("no_messages")
    return "".join(str(text) for text in texts)


def _read_tool_call(call: object) -> dict[str, Any]:
    """Return a tool call whose arguments are a mapping: OpenAI writes them as JSON, and chat templates expect a mapping."""
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        raise UnusableRowError("broken_tool_call")
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parse_json(arguments, "broken_tool_call")
    if not isinstance(arguments, Mapping) or not isinstance(function.get("name"), str):
        raise UnusableRowError("broken_tool_call")
    if _is_deeper(arguments, DEEPEST):
        raise UnusableRowError("broken_tool_call")
    # Parquet fills up structs: an argument that is null there was not given.
    given = {name: value for name, value in arguments.items() if value is not None}
    kept = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**kept, "type": "function", "function": {"name": function["name"], "arguments": given}}


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether a JSON value has more than so many levels of lists and objects."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return bool(parts) and (levels == 0 or any(_is_deeper(part, levels - 1) for part in parts))


def _parse_json(text: str, reason: str) -> Any:
    """Return the content of JSON. Raises UnusableRowError with that reason."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableRowError(reason) from None
