"""Answers that a language model writes to held-out prompts, and how good they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch

from engine.data.conversations import PLAIN_TEXT, Conversation
from engine.events import LONGEST_SHOWN
from engine.models.chat_template import ChatTemplate

MOST_ANSWERS = 100  # of an evaluation, in the order of the rows
LONGEST_ANSWER = 512  # tokens
BATCH = 50  # prompts
SHOWN = 8  # answers that metrics.json has


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model wrote to some prompts, beside what the data have; empty for plain texts, which nobody asks for."""

    prompts: list[str]
    expected: list[str]
    written: list[str]

    def scores(self) -> dict[str, float]:
        """Return the share of answers that are those of the data, and where those are JSON, the shares of valid JSON and right fields."""
        if not self.written:
            return {}
        pairs = zip(self.written, self.expected, strict=True)
        scores = {
            "exact_match": sum(written.strip() == expected.strip() for written, expected in pairs) / len(self.written)
        }
        if all(map(is_json_container, self.expected)):
            scores["json_valid"] = sum(map(is_json_container, self.written)) / len(self.written)
            share = field_accuracy(self.written, self.expected)
            scores |= {} if share is None else {"field_accuracy": share}
        return scores

    def beside(self, base: Answers) -> list[dict[str, str]]:
        """Return the first prompts, each with the expected answer, that of the base model and that of the tuned one."""
        columns = zip(self.prompts, self.expected, base.written, self.written, strict=True)
        rows = [dict(zip(("prompt", "expected", "base", "tuned"), column, strict=True)) for column in columns]
        return rows[:SHOWN]

    def shown(self) -> list[dict[str, str]]:
        """Return the first prompts, each with the expected answer and the one that was written, without the end of long ones."""
        columns = zip(self.prompts[:SHOWN], self.expected, self.written, strict=False)
        return [
            {name: text[:LONGEST_SHOWN] for name, text in zip(("prompt", "expected", "written"), column, strict=True)}
            for column in columns
        ]


def field_accuracy(written: list[str], expected: list[str]) -> float | None:
    """Return the share of the fields of expected JSON objects that the written ones have with the same value; None without fields."""
    right = 0
    fields = 0
    for text, expected_text in zip(written, expected, strict=True):
        expected_object = json.loads(expected_text)
        written_object = json.loads(text) if is_json_container(text) else {}
        if isinstance(expected_object, dict):
            fields += len(expected_object)
            given = written_object if isinstance(written_object, dict) else {}
            right += sum(name in given and given[name] == value for name, value in expected_object.items())
    return right / fields if fields else None


def is_json_container(text: str) -> bool:
    """Return whether a text is a JSON object or array: a bare number or word is JSON too, but nobody means it so."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def write_answers(
    model: Any, template: ChatTemplate, conversations: list[Conversation], end_id: int, longest: int, most: int
) -> Answers:
    """Let a model of transformers write the last answer of some conversations, greedily and with a cache of keys and values.

    longest: tokens of the longest answer that is expected; half as many more are allowed, so that no answer goes on for ever.
    most: prompts.
    """
    is_answered = [each[0]["role"] != PLAIN_TEXT and not each[-1].get("tool_calls") for each in conversations]
    chosen = list(compress(conversations, is_answered))[:most]
    prompts = [template.prompt(each) for each in chosen]
    limit = min(LONGEST_ANSWER, longest + longest // 2)
    by_length = sorted(range(len(chosen)), key=lambda index: len(prompts[index]))
    written = [""] * len(chosen)
    for start in range(0, len(by_length), BATCH):
        batch = by_length[start : start + BATCH]
        texts = _generate(model, template.tokenizer, [prompts[index] for index in batch], end_id, limit)
        for index, text in zip(batch, texts, strict=True):
            written[index] = text
    questions = [each[-2]["content"] if len(each) > 1 else "" for each in chosen]
    return Answers(questions, [each[-1]["content"] for each in chosen], written)


def _generate(model: Any, tokenizer: Any, prompts: list[str], end_id: int, limit: int) -> list[str]:
    """Return the texts that follow the prompts, without special tokens. Shorter prompts are padded on the left."""
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    length = max(map(len, rows))
    ids = torch.tensor([[end_id] * (length - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=model.device)
    generated = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    return list(tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True))
