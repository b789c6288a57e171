"""Token ids of preferences: each is two conversations with the same prompt, of which the model learns the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.conversation_tokens import ConversationTokens, encode, join
from engine.data.conversations import UnusableRowError
from engine.data.preferences import Preference, branches_of
from engine.models.chat_template import ChatTemplate, RenderedConversation


@dataclass(frozen=True)
class PreferenceTokens:
    """Tokens of many preferences.

    branches: the conversation with the chosen answer of preference i at 2 i, that with the rejected one at 2 i + 1.
    rows: (preferences,) int64, the row of each; rows without are left out.
    """

    branches: ConversationTokens
    rows: np.ndarray

    @property
    def conversations(self) -> ConversationTokens:
        """Return both branches; see engine.tasks.learned_tokens."""
        return self.branches

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of both branches of each preference: (preferences,) int64."""
        return self.branches.lengths.reshape(-1, 2).sum(axis=1)

    @property
    def row_count(self) -> int:
        """Return the number of rows that are kept."""
        return len(self.rows)

    @property
    def target_tokens(self) -> int:
        """Return the number of tokens of all answers."""
        return self.branches.target_tokens

    @property
    def longest_answer(self) -> int:
        """Return the most tokens of one answer."""
        return self.branches.longest_answer

    @property
    def end_tokens(self) -> set[str]:
        """Return the tokens that end answers."""
        return self.branches.end_tokens


def tokenise_preferences(
    texts: Sequence[str], template: ChatTemplate, max_length: int, skipped: dict[str, int]
) -> PreferenceTokens:
    """Return the tokens of preferences, each as JSON.

    One of which a branch is too long is left out, as is one that the template refuses; they are counted in `skipped`.
    Raises ChatTemplateError.
    """
    rows: list[int] = []
    rendered: list[RenderedConversation] = []
    for row, text in enumerate(texts):
        preference: Preference = json.loads(text)
        try:
            rendered += [
                template.render_answers(branch, first=len(preference["prompt"])) for branch in branches_of(preference)
            ]
        except UnusableRowError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
            continue
        rows.append(row)
    encoded = list(encode(rendered, template))
    fits = [
        max(len(chosen.ids), len(rejected.ids)) <= max_length
        for chosen, rejected in zip(encoded[::2], encoded[1::2], strict=True)
    ]
    if not all(fits):
        skipped["over_long"] = skipped.get("over_long", 0) + fits.count(False)
    kept_rows = np.array([row for row, fit in zip(rows, fits, strict=True) if fit], dtype=np.int64)
    kept = [branch for index, branch in enumerate(encoded) if fits[index // 2]]
    return PreferenceTokens(join(kept, np.repeat(kept_rows, 2).tolist()), kept_rows)
