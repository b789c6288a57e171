"""Chat templates for base models that have none of their own, such as GPT-2, and what they make of a conversation.

Each ends every answer with a special token: the model learns it with the answer, and stops there when it is served.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:
    from engine.data.conversations import Message

PlainTemplate = Literal["plain", "chatml", "alpaca"]
USUAL: PlainTemplate = "plain"
IM_END = "<|im_end|>"  # ends turns of ChatML where the base model has it as a token
TEMPLATES = {
    "plain": (
        "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
        "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "alpaca": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
        "{% elif message['role'] == 'assistant' %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n"
        "{% else %}### {{ 'Instruction' if message['role'] == 'user' else 'Input' }}:\n{{ message['content'] }}\n\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
}
TITLES = {"plain": "User/Assistant", "chatml": "ChatML", "alpaca": "Alpaca"}
NOTICE = gettext_noop(
    "{model} has no chat template, so a plain one is used and saved with the model: {title} ({begins})."
)
BEGINNINGS = {
    "plain": '"User: …", "Assistant: …"',
    "chatml": '"<|im_start|>user", "<|im_start|>assistant"',
    "alpaca": '"### Instruction:", "### Response:"',
}
OWN_TEMPLATE = gettext_noop(
    "{model} has a chat template of its own, which is always used. Set model.chat_template to plain."
)


def plain_template(name: str, special_tokens: Collection[str]) -> str:
    """Return the template of a name for a tokenizer with these special tokens."""
    template = TEMPLATES[name]
    if name == "chatml" and IM_END in special_tokens:
        return template.replace("eos_token", f"'{IM_END}'")
    return template


def notice(name: str, model: str) -> Sentence:
    """Return the sentence that says which template a base model gets."""
    return Sentence(NOTICE, model=model, title=TITLES[name], begins=BEGINNINGS[name])


def preview(name: str, folder: Path, messages: Sequence[Message]) -> str:
    """Return a conversation as a base model in a folder would read it, without loading its tokenizer."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # as transformers renders templates

    special_tokens, end = read_special_tokens(folder)
    template = ImmutableSandboxedEnvironment().from_string(plain_template(name, special_tokens))
    return template.render(messages=messages, eos_token=end)


@lru_cache(maxsize=32)
def read_special_tokens(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return the special tokens of a base model's files and the one that ends texts, as far as the files name them."""
    added = _read_json(folder / "tokenizer.json").get("added_tokens") or []
    special = tuple(str(token["content"]) for token in added if token.get("special"))
    end = _read_json(folder / "tokenizer_config.json").get("eos_token")
    if isinstance(end, dict):
        end = end.get("content")
    return special, str(end or next(iter(special), "</s>"))


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
