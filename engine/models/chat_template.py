"""Render conversations with a base model's chat template, and find in the result what the assistant is to learn.

No list of known templates: whatever a template does (trim, add a system message, merge one into the next, change earlier turns)
shows when conversations are rendered and compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.conversations import PLAIN_TEXT, Conversation, Message, UnusableRowError
from engine.errors import ChatTemplateError
from engine.models.plain_templates import OWN_TEMPLATE, USUAL, plain_template
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PreTrainedTokenizerBase

PROBE = "\ue000\ue001\ue002"  # of the private use area: stands in no text, and no template trims it


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A conversation as the model reads it, and the parts [start, end) of it that the assistant learns to write.

    is_plain_text: whether it is a text that nobody says to anybody, which may be cut into windows.
    """

    text: str
    spans: list[tuple[int, int]]
    is_plain_text: bool = False


def has_template(folder: Path) -> bool:
    """Return whether a base model's files have a chat template, without loading its tokenizer."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    return False


class ChatTemplate:
    """The chat template of a tokenizer. name: what errors call the base model.

    plain: the template that is put into the tokenizer if it has none. origin: its name, or own.
    Raises ChatTemplateError if the tokenizer can't end an answer, or if another template than its own is asked for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, plain: str = USUAL) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self.origin = plain if tokenizer.chat_template is None else "own"
        self.refusal = ""  # what the template said of the last conversation that it refused
        if tokenizer.eos_token_id is None:
            raise ChatTemplateError(
                Sentence(
                    gettext_noop(
                        "The tokenizer of {name} has no end-of-text token, so the model could not learn to stop. Set eos_token in "
                        "its tokenizer_config.json, or choose another base model."
                    ),
                    name=name,
                ),
                field="model.name",
            )
        added = tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
        if self.origin != "own":
            tokenizer.chat_template = plain_template(plain, special)
        elif plain != USUAL:
            raise ChatTemplateError(Sentence(OWN_TEMPLATE, model=name), field="model.chat_template")
        self.special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        self.end_of_turn = re.compile(rf"\s*({self.special.pattern})")

    def render(
        self, messages: Conversation, add_generation_prompt: bool = False, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """Return the conversation as text. tools: that the model may call, as OpenAI's API has them.

        Raises UnusableRowError if the template refuses it.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, list(tools) or None, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (
            Exception
        ) as error:  # a template is a program: beside its own raise_exception, anything may go wrong in it
            raise UnusableRowError("template_refused") from error

    def prompt(self, conversation: Conversation) -> str:
        """Return what the model reads before it writes the conversation's last answer."""
        return self.render(conversation[:-1], add_generation_prompt=True)

    def render_answers(self, conversation: Conversation, first: int = 0) -> RenderedConversation:
        """Return the conversation as text with the spans of its answers, each with its end-of-turn token.

        first: index of the message from which on answers are learned.
        Raises UnusableRowError if the template refuses the conversation, ChatTemplateError if the spans can't be found.
        """
        if any(self.special.search(message["content"]) for message in conversation):
            raise UnusableRowError("special_token")
        if conversation[0]["role"] == PLAIN_TEXT:
            # Without a template: the text between the tokens that begin and end a text.
            adds_bos = self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]
            begin = self.tokenizer.bos_token if adds_bos else ""
            text = f"{begin}{conversation[0]['content']}{self.tokenizer.eos_token}"
            return RenderedConversation(text, [(len(begin), len(text))], is_plain_text=True)
        try:
            text = self.render(conversation)
        except UnusableRowError as error:
            self.refusal = str(error.__cause__)[:200]
            raise
        answers = [index for index in range(first, len(conversation)) if conversation[index]["role"] == "assistant"]
        spans = []
        ends = set()
        for index in answers:
            start, content_end = self._locate_answer(conversation, index, text)
            if not text[start:content_end].strip():
                raise self._error(Sentence(gettext_noop("hides answers")))
            match = self.end_of_turn.match(text, content_end)
            if match is None:
                raise self._error(
                    Sentence(gettext_noop("puts no end-of-turn token after an answer, so the model would never stop"))
                )
            spans.append((start, match.end()))
            ends.add(match[1])
        if len(ends) > 1:
            raise self._error(
                Sentence(gettext_noop("ends answers in different ways ({ends})"), ends=", ".join(sorted(ends)))
            )
        return RenderedConversation(text, spans)

    def end_token(self, rendered: RenderedConversation) -> str:
        """Return the token that ends the answers of a rendered conversation."""
        end = rendered.spans[-1][1]
        tokens = [match[0] for match in self.special.finditer(rendered.text, rendered.spans[-1][0], end)]
        return tokens[-1]

    def _locate_answer(self, conversation: Conversation, index: int, text: str) -> tuple[int, int]:
        """Return where answer `index` starts and where its content ends in the rendered conversation.

        It starts behind the prompt that the model will get, and where the template does not render that in the same way,
        at its content, whose place shows when it is replaced.
        """
        prompt = self._try_to_render(conversation[:index], add_generation_prompt=True)
        probed: Message = conversation[index] | {"content": PROBE}
        replaced = self._try_to_render([*conversation[:index], probed, *conversation[index + 1 :]])
        before, marker, after = (replaced or "").partition(PROBE)
        is_located = bool(marker) and PROBE not in after and text.endswith(after)
        if not is_located:  # a tool call hides the content: then the turn ends where the conversation up to it ends
            turn = (self._try_to_render(conversation[: index + 1]) or "").rstrip()
            last = max((match.start() for match in self.special.finditer(turn)), default=-1)
            if prompt is None or last < len(prompt) or not text.startswith(turn) or not text.startswith(prompt):
                raise self._error(Sentence(gettext_noop("does not show where an answer ends")))
            return len(prompt), last
        end = len(text) - len(after)
        if prompt is not None and text.startswith(prompt) and len(prompt) <= end:
            return len(prompt), end
        if not text.startswith(before):
            raise self._error(Sentence(gettext_noop("does not show where an answer begins")))
        return len(before), end

    def _try_to_render(self, messages: Conversation, **options: Any) -> str | None:
        """Return the messages as text; None if the template refuses them, as many do with parts of conversations."""
        try:
            return self.render(messages, **options)
        except UnusableRowError:
            return None

    def _error(self, fault: str) -> ChatTemplateError:
        return ChatTemplateError(
            Sentence(
                gettext_noop(
                    "The chat template of {name} {fault}. Correct it in the base model's files, or choose another base model."
                ),
                name=self.name,
                fault=fault,
            ),
            field="model.name",
        )
