"""What a task of language models needs to know of the tokens of a split: of conversations, or of preferences."""

from typing import Protocol

import numpy as np

from engine.data.conversation_tokens import ConversationTokens


class LearnedTokens(Protocol):
    """The tokens of a split, row by row."""

    @property
    def conversations(self) -> ConversationTokens:
        """Return them as conversations, of which a preference has two."""

    @property
    def rows(self) -> np.ndarray:
        """Return the row of the split that each one comes from: (rows that are kept,) int64."""

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each row: (rows that are kept,) int64."""

    @property
    def target_tokens(self) -> int:
        """Return the number of tokens that are learned."""

    @property
    def longest_answer(self) -> int:
        """Return the most tokens that are learned of one conversation."""

    @property
    def row_count(self) -> int:
        """Return the number of rows that are kept."""

    @property
    def end_tokens(self) -> set[str]:
        """Return the tokens that end answers."""
