"""The checks of conversations, and their rows as all checks see them: what is said, and not the JSON around it."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import polars as pl

from datasets_app.checks.checked_rows import CheckedRows, CheckResult, Severity
from datasets_app.conversations import answers_of, branches, has_same_answers, load, text_of
from datasets_app.reading.conversation_rows import is_visible
from datasets_app.reading.options import CHAT_KINDS
from datasets_app.reading.stored_rows import Rows
from engine.data.conversations import PLAIN_TEXT, Conversation, question_of

TOKEN_LIMIT = 1024  # the default of data.max_length for language models
TEXT_CODES: dict[str, Severity] = {  # the checks of a single conversation
    "markup": "info",
    "control_characters": "info",
    "encoding": "warning",
    "personal_data": "warning",
}
# How assistants refuse, or say what they are instead of an answer, in English and Chinese. Only the beginning of an answer is
# compared: an apology later on belongs to it.
_REFUSAL = re.compile(
    r"\W*(?:(?:i'm |i am )?(?:very )?sorry\W+(?:but )?(?:as an ai|i (?:can't|cannot|am unable|am not able))"
    r"|as an? (?:ai\b|artificial intelligence|(?:large )?language model)"
    r"|i (?:can't|cannot|am unable to|am not able to) (?:assist|help|fulfil|comply|provide)"
    r"|(?:很)?(?:抱歉|對不起|对不起)\W*(?:但)?我(?:無法|无法|不能)"
    r"|(?:作為|作为|身為)(?:一個|一个|一名)?(?:AI|人工智慧|人工智能|語言模型|语言模型))",
    re.IGNORECASE,
)
_FACTS = {
    **dict.fromkeys(("text", "spoken", "question", "instruction", "answers"), pl.String),
    **dict.fromkeys(("role_order", "same_answers", "empty_turn", "refusal"), pl.Boolean),
}


def long_code(kind: str) -> str:
    """Return the code of the finding of rows that are longer than TOKEN_LIMIT."""
    return "long_text" if kind == "text" else "long_conversation"


def text_codes(kind: str) -> dict[str, Severity]:
    """Return the checks of a single row of this kind."""
    return TEXT_CODES | {long_code(kind): "info"}


def as_checks_see(rows: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Return the rows; those of conversations with what is said as their `text`, and with what their checks need."""
    if kind not in CHAT_KINDS:
        return rows
    facts = pl.DataFrame([_facts_of(text) for text in rows["text"]], schema=_FACTS, orient="row")
    return rows.drop("text").hstack(facts)


def _facts_of(text: str) -> dict[str, Any]:
    conversation = load(text)
    spoken = [message for message in conversation if message["role"] in ("user", "assistant", PLAIN_TEXT)]
    return {
        "text": text_of(conversation),
        "spoken": "\n".join(message["content"] for message in spoken),
        "question": question_of(conversation),
        "instruction": "\n".join(message["content"] for message in conversation if message["role"] == "system"),
        "answers": answers_of(conversation),
        "role_order": any(map(has_roles_out_of_order, branches(text))),
        "same_answers": has_same_answers(text),
        "empty_turn": any(
            not is_visible(message["content"]) and "tool_calls" not in message for message in conversation
        ),
        "refusal": any(message["role"] == "assistant" and is_refusal(message["content"]) for message in conversation),
    }


def is_refusal(answer: str) -> bool:
    """Return whether an answer begins as the refusals and the boilerplate of assistants do."""
    return bool(_REFUSAL.match(answer.replace("’", "'")))


def has_roles_out_of_order(conversation: Conversation) -> bool:
    """Return whether chat templates may refuse the order: system first, then user and assistant in turns, tools when called."""
    roles = [message["role"] for message in conversation]
    if roles == [PLAIN_TEXT]:
        return False
    if "system" in roles[1:]:
        return True
    talk = roles[1:] if roles[0] == "system" else roles
    if not talk or talk[0] != "user":
        return True
    followers = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
    if any(later not in followers[earlier] for earlier, later in pairwise(talk)):
        return True
    for earlier, later in pairwise(conversation[-len(talk) :]):
        # The first of several answers of tools stands for all.
        if earlier["role"] == "assistant" and later["role"] == "tool" and "tool_calls" not in earlier:
            return True
    return False


def turn_faults(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find roles out of order, messages that say nothing, preferences between two equal answers, and refusals."""
    yield from rows.results("role_order", "warning", rows.frame.filter("role_order").select("row"))
    yield from rows.results("empty_turn", "warning", rows.frame.filter("empty_turn").select("row"))
    yield from rows.results("same_answers", "warning", rows.frame.filter("same_answers").select("row"))
    if rows.kind != "preferences":  # there a refusal may be the answer that is rejected
        yield from rows.results("refusal", "info", rows.frame.filter("refusal").select("row"))


def similar_prompt(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find prompts that are nearly those of an earlier row; equal prompts belong to other checks."""
    first = [pl.col(name).first().over("group").alias(f"first_{name}") for name in ("row", "same")]
    repeated = rows.repeated("group").with_columns(first).filter(pl.col("same") != pl.col("first_same"))
    unique = repeated.unique("same", keep="first", maintain_order=True)
    yield from rows.results("similar_prompt", "info", unique, {"like_row": "first_row"})


def answer_conflict(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find rows with the same instruction and prompt, and different answers."""
    if rows.kind == "preferences":  # several pairs of a prompt are wanted
        return
    repeated = rows.repeated("same").join(rows.frame.select("row", "instruction", "answers"), on="row")
    answers = pl.col("answers").n_unique().over("same", "instruction")
    conflicting = repeated.filter(answers > 1).sort(pl.col("row").min().over("same", "instruction"), "row")
    yield from rows.results("answer_conflict", "warning", conflicting)


def prompt_leakage(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find prompts that stand in more than one of the splits that the file gives: an error if they are the same."""
    if "split" not in rows.facts.columns:  # our own splits keep near-duplicates together
        return
    leaked = rows.repeated("group").filter(pl.col("split").n_unique().over("group") > 1)
    is_same = bool(leaked.filter(pl.col("split").n_unique().over("same") > 1).height)
    leaked = leaked.sort(pl.col("row").min().over("group"), "row")
    yield from rows.results("prompt_leakage", "error" if is_same else "warning", leaked, {"split": "split"})


def left_out(rows: Rows) -> Iterator[CheckResult]:
    """Yield a result for each reason why rows of the file are no conversations to learn from."""
    for reason, examples in rows.unusable.items():
        yield CheckResult(reason, "warning", rows.left_out[reason], examples)


CHAT_CHECKS = (turn_faults, similar_prompt, answer_conflict, prompt_leakage)
