"""Preferences in one canonical form: a prompt with two answers, each a list of messages as in engine.data.conversations."""

from __future__ import annotations

from typing import Any

from engine.data.conversations import Conversation, UnusableRowError, read_conversation

Preference = dict[str, Conversation]  # {"prompt", "chosen", "rejected"}


def read_preference(prompt: list[Any], chosen: list[Any], rejected: list[Any]) -> Preference:
    """Return the canonical form of messages. Both answers may begin with the prompt; without a prompt, they have to.

    Raises UnusableRowError.
    """
    if not prompt:
        # What both begin with. The last message of each is an answer even if they are the same.
        most = min(len(chosen), len(rejected)) - 1
        prompt = chosen[: next((i for i in range(most) if chosen[i] != rejected[i]), max(0, most))]
    if not prompt:
        raise UnusableRowError("no_prompt")
    read = []
    for answer in (chosen, rejected):
        repeats_prompt = len(answer) > len(prompt) and answer[: len(prompt)] == prompt
        conversation = read_conversation(answer if repeats_prompt else [*prompt, *answer])
        if len(conversation) <= len(prompt):
            raise UnusableRowError("no_answer")
        read.append(conversation)
    return {"prompt": read[0][: len(prompt)], "chosen": read[0][len(prompt) :], "rejected": read[1][len(prompt) :]}


def branches_of(preference: Preference) -> list[Conversation]:
    """Return the conversation with the chosen answer, and that with the rejected one."""
    return [preference["prompt"] + preference["chosen"], preference["prompt"] + preference["rejected"]]
