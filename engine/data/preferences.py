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
    answers = [_without_beginning(answer, prompt) for answer in (chosen, rejected)]
    read = [_read_answer(prompt, answer) for answer in answers]
    return {"prompt": read[0][: len(prompt)], "chosen": read[0][len(prompt) :], "rejected": read[1][len(prompt) :]}


def branches_of(preference: Preference) -> list[Conversation]:
    """Return the conversation with the chosen answer, and that with the rejected one."""
    return [preference["prompt"] + preference["chosen"], preference["prompt"] + preference["rejected"]]


def _common_beginning(chosen: list[Any], rejected: list[Any]) -> list[Any]:
    """Return the messages that both begin with; the last message of each is an answer even if they are the same."""
    most = min(len(chosen), len(rejected)) - 1
    same = next((i for i in range(most) if chosen[i] != rejected[i]), max(0, most))
    return chosen[:same]


def _without_beginning(answer: list[Any], prompt: list[Any]) -> list[Any]:
    return answer[len(prompt) :] if len(answer) > len(prompt) and answer[: len(prompt)] == prompt else answer


def _read_answer(prompt: list[Any], answer: list[Any]) -> list[Message]:
    """Return the conversation of a prompt and an answer. Raises UnusableRowError if the answer has none of the assistant."""
    read = read_conversation([*prompt, *answer])
    if len(read) <= len(prompt):
        raise UnusableRowError("no_answer")
    return read
