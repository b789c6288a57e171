"""Preferences in one canonical form: a prompt with two answers, each a list of messages as in engine.data.conversations."""

from __future__ import annotations

from typing import Any

from engine.data.conversations import Conversation, Message, UnusableRowError, read_conversation

Preference = dict[str, Conversation]  # {"prompt", "chosen", "rejected"}


def read_preference(prompt: list[Any], chosen: list[Any], rejected: list[Any]) -> Preference:
    """Return the canonical form of messages. Both answers may begin with the prompt; without a prompt, they have to.

    Raises UnusableRowError.
    """
    if not prompt:
        prompt = _common_beginning(chosen, rejected)
    if not prompt:
        raise UnusableRowError("no_prompt")
    read = []
    for answer in (chosen, rejected):
        repeats_prompt = len(answer) > len(prompt) and answer[: len(prompt)] == prompt
        read.append(_read_answer(prompt, answer[len(prompt) :] if repeats_prompt else answer))
    return {"prompt": read[0][: len(prompt)], "chosen": read[0][len(prompt) :], "rejected": read[1][len(prompt) :]}


def branches_of(preference: Preference) -> list[Conversation]:
    """Return the conversation with the chosen answer, and that with the rejected one."""
    return [preference["prompt"] + preference["chosen"], preference["prompt"] + preference["rejected"]]


def _common_beginning(chosen: list[Any], rejected: list[Any]) -> list[Any]:
    """Return the messages that both begin with; the last message of each is an answer even if they are the same."""
    most = min(len(chosen), len(rejected)) - 1
    same = next((i for i in range(most) if chosen[i] != rejected[i]), max(0, most))
    return chosen[:same]


def _read_answer(prompt: list[Any], answer: list[Any]) -> list[Message]:
    """Return the conversation of a prompt and an answer. Raises UnusableRowError if the answer has none of the assistant."""
    read = read_conversation([*prompt, *answer])
    if len(read) <= len(prompt):
        raise UnusableRowError("no_answer")
    return read
