"""Choose the conversations that an exported language model is compared on: held-out ones first, then others."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.data.conversation_tokens import ConversationTokens, tokenise_conversations
from engine.data.conversations import PLAIN_TEXT, Conversation, to_json
from engine.data.preferences import branches_of
from engine.errors import ExportRefusedError
from engine.export.comparison import random_texts
from engine.models.chat_template import ChatTemplate
from engine.sentences import Sentence, gettext_noop
from engine.serve.model_files import ModelInfo

MOST_PROMPTS = 100
MOST_CANDIDATES = 300  # of each kind, some of which may be too long for the model
RANDOM_LENGTH = 40  # tokens of a random text


@dataclass(frozen=True, slots=True)
class ComparedConversations:
    """Conversations as text and as tokens, how many prompts there are of which kind, and the token that ends answers.

    counts: by kind: held_out, training, parts (of both) or random. Of plain texts, each window is a prompt.
    """

    conversations: list[Conversation]
    tokens: ConversationTokens
    counts: dict[str, int]
    template: ChatTemplate
    end_id: int


def choose_conversations(
    template: ChatTemplate, info: ModelInfo, held_out: Sequence[str] | None, training: Sequence[str] = ()
) -> ComparedConversations:
    """Return the first conversations that the model can read; random ones if held_out is None.

    held_out, training: rows of the run's data, conversations or preferences as JSON. Where both are fewer than MOST_PROMPTS, parts
    of their questions follow. Raises ExportRefusedError if the model can read none of them.
    """
    if held_out is None:
        sources: dict[str, Iterable[Conversation]] = {"random": random_conversations(template)}
    else:
        rows = {"held_out": read_conversations(held_out), "training": read_conversations(training)}
        sources = {**rows, "parts": parts_of([*rows["held_out"], *rows["training"]])}
    chosen: list[Conversation] = []
    counts: dict[str, int] = {}
    for kind, conversations in sources.items():
        if kind == "parts" and not chosen:
            break
        readable, prompts = choose_readable(conversations, template, info, MOST_PROMPTS - sum(counts.values()))
        chosen += readable
        counts |= {kind: prompts} if prompts else {}
    if not chosen:
        raise ExportRefusedError(
            Sentence(
                gettext_noop("There is no conversation that the model can read. Give others to compare answers on.")
            )
        )
    tokens = tokenise_conversations([to_json(each) for each in chosen], template, info.max_length, {})
    end_id = int(template.tokenizer.get_vocab()[info.end_of_turn or min(tokens.end_tokens)])
    return ComparedConversations(chosen, tokens, counts, template, end_id)


def read_conversations(rows: Sequence[str]) -> list[Conversation]:
    """Return the conversations of some rows; of a preference that with the chosen answer."""
    stored = [json.loads(row) for row in rows[:MOST_CANDIDATES]]
    return [branches_of(each)[0] if isinstance(each, dict) else each for each in stored]


def choose_readable(
    conversations: Iterable[Conversation], template: ChatTemplate, info: ModelInfo, most: int
) -> tuple[list[Conversation], int]:
    """Return the first conversations with at most so many prompts that the model can read, and how many prompts these are."""
    if most == 0:
        return [], 0
    candidates = list(conversations)
    texts = [to_json(each) for each in candidates]
    rows = tokenise_conversations(texts, template, info.max_length, {}).rows.tolist()[:most]
    return [candidates[row] for row in dict.fromkeys(rows)], len(rows)


def random_conversations(template: ChatTemplate) -> list[Conversation]:
    """Return questions and answers of random tokens."""
    texts = random_texts(template.tokenizer, RANDOM_LENGTH, 2 * MOST_PROMPTS)
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
        if question.strip() and answer.strip()
    ]


def parts_of(conversations: Sequence[Conversation]) -> Iterator[Conversation]:
    """Yield the conversations with a half of their last question each, then halves of these, at most MOST_CANDIDATES."""
    whole = deque(conversations)
    count = 0
    while whole:
        for part in halve_question(whole.popleft()):
            if count == MOST_CANDIDATES:
                return
            yield part
            whole.append(part)
            count += 1


def halve_question(conversation: Conversation) -> list[Conversation]:
    """Return the conversation with the first and with the second half of its last question, or of its plain text."""
    asked = [index for index, message in enumerate(conversation) if message["role"] in ("user", PLAIN_TEXT)]
    if not asked:
        return []
    content = conversation[asked[-1]]["content"].strip()
    middle = content.find(" ", len(content) // 2)
    if middle == -1:  # Chinese has no spaces
        middle = len(content) // 2
    halves = [half for half in (content[:middle].strip(), content[middle:].strip()) if half]
    if len(halves) < 2:
        return []
    before, after = conversation[: asked[-1]], conversation[asked[-1] + 1 :]
    return [[*before, conversation[asked[-1]] | {"content": half}, *after] for half in halves]
