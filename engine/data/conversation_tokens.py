"""Token ids of conversations, and which of them the model learns to write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.conversations import Conversation, UnusableRowError
from engine.models.chat_template import ChatTemplate, RenderedConversation

CHUNK = 1024  # conversations


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """Token ids of one conversation: (tokens,) int32, whether each is learned: (tokens,) bool, and the token that ends its answers."""

    ids: np.ndarray
    is_target: np.ndarray
    end_token: str


@dataclass(frozen=True)
class ConversationTokens:
    """Token ids of many conversations, end to end.

    ids: (tokens,) int32; is_target: (tokens,) bool, whether the model learns to write a token; offsets: (conversations + 1,)
    int64, where each one begins. rows: (conversations,) int64, the row of each; rows without are left out, and a plain text
    that is cut has several windows, each of which counts as a conversation here.
    end_tokens: the tokens that end answers.
    """

    ids: np.ndarray
    is_target: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    end_tokens: set[str]

    @property
    def conversations(self) -> ConversationTokens:
        """Return these tokens; see engine.tasks.learned_tokens."""
        return self

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each conversation: (conversations,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> np.ndarray:
        """Return the tokens of each conversation that are learned: (conversations,) int64."""
        return np.diff(np.concatenate(([0], np.cumsum(self.is_target)))[self.offsets])

    @property
    def row_count(self) -> int:
        """Return the number of rows that are kept."""
        return len(np.unique(self.rows))

    @property
    def target_tokens(self) -> int:
        """Return the number of tokens that are learned."""
        return int(self.is_target.sum())

    @property
    def longest_answer(self) -> int:
        """Return the most tokens that are learned of one conversation."""
        return int(self.targets.max(initial=0))

    def places(self, conversations: np.ndarray) -> np.ndarray:
        """Return the indexes of the tokens of some conversations, end to end: (their tokens,) int64."""
        return np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in conversations.tolist()])


def tokenise_conversations(
    texts: Sequence[str], template: ChatTemplate, max_length: int, skipped: dict[str, int]
) -> ConversationTokens:
    """Return the tokens of conversations, each as JSON.

    Those that are too long are left out, as are those that the template refuses; they are counted in `skipped`. Plain texts that
    are too long are cut into windows instead. Raises ChatTemplateError.
    """
    kept: list[tuple[int, RenderedConversation]] = []
    for row, text in enumerate(texts):
        conversation: Conversation = json.loads(text)
        try:
            kept.append((row, template.render_answers(conversation)))
        except UnusableRowError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
    encoded = encode([rendered for _row, rendered in kept], template)
    fitting: list[EncodedConversation] = []
    rows: list[int] = []
    for (row, rendered), conversation_tokens in zip(kept, encoded, strict=True):
        windows = [conversation_tokens]
        if rendered.is_plain_text:
            windows = cut_into_windows(conversation_tokens, max_length)
        elif len(conversation_tokens.ids) > max_length:
            skipped["over_long"] = skipped.get("over_long", 0) + 1
            continue
        fitting += windows
        rows += [row] * len(windows)
    return join(fitting, rows)


def cut_into_windows(text: EncodedConversation, max_length: int) -> list[EncodedConversation]:
    """Return a text in windows of at most `max_length` tokens, such that each of its tokens is learned exactly once.

    A window begins with the last token of the one before, from which its next token is foreseen.
    """
    starts = range(0, max(1, len(text.ids) - 1), max_length - 1)
    windows = []
    for start in starts:
        is_target = text.is_target[start : start + max_length].copy()
        is_target[:1] = False
        windows.append(EncodedConversation(text.ids[start : start + max_length], is_target, text.end_token))
    return windows


def encode(conversations: Sequence[RenderedConversation], template: ChatTemplate) -> Iterator[EncodedConversation]:
    """Yield the tokens of each rendered conversation."""
    for start in range(0, len(conversations), CHUNK):
        chunk = conversations[start : start + CHUNK]
        encoded = template.tokenizer(
            [rendered.text for rendered in chunk],
            add_special_tokens=False,  # the template has them
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        for rendered, ids, places in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            is_target = _find_targets(np.asarray(places, dtype=np.int64).reshape(-1, 2), rendered)
            yield EncodedConversation(np.asarray(ids, dtype=np.int32), is_target, template.end_token(rendered))


def join(conversations: Sequence[EncodedConversation], rows: Sequence[int]) -> ConversationTokens:
    """Return conversations end to end. rows: the row of each."""
    empty = np.zeros(0, dtype=np.int32)
    return ConversationTokens(
        np.concatenate([*(each.ids for each in conversations), empty]),
        np.concatenate([*(each.is_target for each in conversations), empty.astype(bool)]),
        np.concatenate([[0], np.cumsum([len(each.ids) for each in conversations])]).astype(np.int64),
        np.asarray(rows, dtype=np.int64),
        {each.end_token for each in conversations},
    )


def _find_targets(places: np.ndarray, rendered: RenderedConversation) -> np.ndarray:
    """Return whether each token is learned: (tokens,) bool. places: where each begins and ends in the text: (tokens, 2).

    Its end decides: tokenizers take leading white space out of a token's place, and a token that begins before an answer and ends
    in it has to be learned to write the answer. The first token of all is never learned, as nothing comes before it.
    """
    ends = places[:, 1]
    is_target = np.zeros(len(ends), dtype=bool)
    for start, end in rendered.spans:
        is_target |= (start < ends) & (ends <= end)
    is_target[:1] = False
    return is_target
