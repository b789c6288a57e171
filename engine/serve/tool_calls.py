"""Calls of tools that language models write: the format of a chat template, found by rendering a call, and calls in an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.data.conversations import UnusableRowError
from engine.sentences import Sentence, gettext_noop
from engine.serve.errors import ToolsRefusedError
from engine.serve.grammars import enclosed_grammar, schema_fault, schema_grammar
from engine.serve.text_stream import TextStream, ToolCall, overlap

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate

Tool = dict[str, Any]  # {"type": "function", "function": {name, description, parameters}}
PROBE = "\ue000 probe"  # what a user says in the conversation that shows the format; stands in no template


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a call is written, as JSON with its `name` and the arguments under `key`.

    begin, end: what stands around each call; without them, the whole answer is a call, or a list of calls.
    """

    key: str
    begin: str = ""
    end: str = ""
    is_list: bool = False

    def split(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Return the text of an answer beside its calls, and these; all of the text if one of them can't be read."""
        if not self.begin:
            calls = self._read_json(text, self.is_list)
            return ("", calls) if calls else (text, ())
        pattern = re.compile(rf"{re.escape(self.begin)}(.*?)(?:{re.escape(self.end)}|\Z)", re.DOTALL)
        read = [self._read_json(match[1], False) for match in pattern.finditer(text)]
        if not read or not all(read):
            return text, ()
        return pattern.sub("", text).strip(), tuple(call for calls in read for call in calls)

    def may_begin(self, text: str) -> bool:
        """Return whether the first text of an answer may be the beginning of a call."""
        return text.lstrip()[:1] in ("", "[" if self.is_list else "{")

    def grammar(self, tools: Sequence[Tool], name: str | None) -> str:
        """Return the grammar of a call of one of the tools, or of the tool of that name. Raises ToolsRefusedError."""
        schemas = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    self.key: tool["function"].get("parameters") or {"type": "object"},
                },
                "required": ["name", self.key],
                "additionalProperties": False,
            }
            for tool in tools
            if name in (None, tool["function"]["name"])
        ]
        schema: dict[str, Any] = {"anyOf": schemas}
        if self.is_list:
            schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
        if fault := schema_fault(schema):
            message = gettext_noop("Answers can't be held to the parameters of these tools: {reason}")
            raise ToolsRefusedError(Sentence(message, reason=fault))
        if not self.begin:
            return schema_grammar(schema)
        return enclosed_grammar(f"{self.begin}\n", schema, f"\n{self.end}")

    def _read_json(self, text: str, is_list: bool) -> tuple[ToolCall, ...]:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return ()
        if isinstance(content, list) != is_list:
            return ()
        calls = [self._read_call(each) for each in (content if is_list else [content])]
        return tuple(call for call in calls if call) if all(calls) else ()

    def _read_call(self, content: object) -> ToolCall | None:
        if not isinstance(content, dict):
            return None
        name, arguments = content.get("name"), content.get(self.key)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        return ToolCall(name, json.dumps(arguments, ensure_ascii=False))


FORMATS = (
    ToolFormat("arguments", "<tool_call>", "</tool_call>"),  # Hermes, Qwen, SmolLM3
    ToolFormat("parameters"),  # Llama 3
    ToolFormat("arguments"),
    ToolFormat("arguments", is_list=True),  # Mistral
)


def find_format(template: ChatTemplate) -> ToolFormat:
    """Return how a chat template writes calls of tools. Raises ToolsRefusedError if it takes no tools or writes calls otherwise."""
    tool = {
        "type": "function",
        "function": {"name": "look_up", "description": "Look up.", "parameters": {"type": "object"}},
    }
    question = {"role": "user", "content": PROBE}
    function = {"name": "look_up", "arguments": {"place": "here"}}
    call = {"id": "a1b2c3d4e", "type": "function", "function": function}  # Mistral wants ids of nine characters
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        offers = "look_up" in template.render([question], add_generation_prompt=True, tools=[tool])
        text = template.render([question, answer], tools=[tool])
    except UnusableRowError:
        offers, text = False, ""
    if not offers:
        takes_none = gettext_noop(
            "The chat template of this model takes no tools. Leave out tools, or choose another model."
        )
        raise ToolsRefusedError(Sentence(takes_none))
    rest = template.special.sub("", text.rpartition(PROBE)[2])
    brackets = re.search(r"[\[{].*[\]}]", rest, re.DOTALL)
    for format in FORMATS:
        _text, calls = format.split(rest if format.begin or brackets is None else brackets[0])
        if calls == (ToolCall("look_up", '{"place": "here"}'),):
            return format
    unknown_format = gettext_noop(
        "The chat template of this model writes calls of tools in a format that is not known here. Leave out tools, or choose "
        "another model."
    )
    raise ToolsRefusedError(Sentence(unknown_format))


class ToolCallStream(TextStream):
    """The text of an answer that may call tools: what may be a call is held back, and read at the end."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], format: ToolFormat) -> None:
        super().__init__(tokenizer, stop)
        self.format = format
        self._unread = ""  # may be a call
        self._is_text = False  # whether the answer has begun with text, where the whole answer would be a call

    def add(self, token: int) -> str:
        """Return the text that can be shown after one more token."""
        return self._show(super().add(token))

    def end(self) -> str:
        """Return what was held back and is no call, once no token follows."""
        shown = self._show(super().end())
        rest, self.calls = self.format.split(self._unread)
        self._unread = ""
        return shown + rest

    def _show(self, text: str) -> str:
        self._unread += text
        if self.format.begin:
            place = self._unread.find(self.format.begin)
            held = len(self._unread) - place if place >= 0 else overlap(self._unread, self.format.begin)
        else:
            self._is_text = self._is_text or not self.format.may_begin(self._unread)
            held = 0 if self._is_text else len(self._unread)
        end = len(self._unread) - held
        shown, self._unread = self._unread[:end], self._unread[end:]
        return shown
