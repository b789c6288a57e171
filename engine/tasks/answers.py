"""Answers that a language model writes to held-out prompts, and how good they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from statistics import fmean

from engine.data.conversations import PLAIN_TEXT, Conversation
from engine.events import LONGEST_SHOWN
from engine.models.chat_template import ChatTemplate
from engine.storage import write_json
from engine.tasks.answer_writers import AnswerWriter
from engine.tasks.rouge import rouge_l

MOST_ANSWERS = 100  # of the last evaluation, of the base model and of test rows, each in the order of the rows
EARLY_ANSWERS = 16  # of evaluations before, which show how answers change
LONGEST_ANSWER = 512  # tokens
METRICS_OF_ANSWERS = ("exact_match", "rouge_l", "json_valid", "field_accuracy")
SHOWN = 8  # answers that metrics.json has


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model wrote to some prompts, beside what the data have; empty for plain texts, which nobody asks for."""

    prompts: list[str]
    expected: list[str]
    written: list[str]

    @classmethod
    def load_or_write(cls, path: Path | None, write: Callable[[], Answers]) -> Answers:
        """Return the answers in a file, or write and keep them. Raises DiskError."""
        if path is None:
            return write()
        with suppress(OSError, ValueError, TypeError):  # a damaged file is as good as none
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        answers = write()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(answers))
        return answers

    def scores(self) -> dict[str, float]:
        """Return the share of answers that are those of the data, their mean ROUGE-L, and for JSON the shares that are valid and right."""
        if not self.written:
            return {}
        pairs = zip(self.written, self.expected, strict=True)
        matches = [written.strip() == expected.strip() for written, expected in pairs]
        scores = {
            "exact_match": sum(matches) / len(matches),
            "rouge_l": fmean(map(rouge_l, self.written, self.expected)),
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
    write: AnswerWriter, template: ChatTemplate, conversations: list[Conversation], longest: int, most: int
) -> Answers:
    """Let a model write the last answer of some conversations, greedily.

    longest: tokens of the longest answer that is expected; half as many more are allowed, so that no answer goes on for ever.
    most: prompts.
    """
    is_answered = [each[0]["role"] != PLAIN_TEXT and not each[-1].get("tool_calls") for each in conversations]
    chosen = list(compress(conversations, is_answered))[:most]
    questions = [each[-2]["content"] if len(each) > 1 else "" for each in chosen]
    written: list[str] = []
    if chosen:
        prompts = template.tokenizer([template.prompt(each) for each in chosen], add_special_tokens=False)["input_ids"]
        answers = write(prompts, min(LONGEST_ANSWER, longest + longest // 2))
        written = template.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return Answers(questions, [each[-1]["content"] for each in chosen], written)


def answers_path(cache: Path | None, key: str) -> Path | None:
    """Return the file of a cache folder that keeps answers by all that they depend on; None without a folder."""
    return None if cache is None else cache / f"answers-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
