"""Causal language modelling: a model learns to write the assistant's answers, by cross entropy on their tokens alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from engine.data.conversation_tokens import ConversationTokens, tokenise_conversations
from engine.data.conversations import Conversation
from engine.data.labelled_rows import Split
from engine.models.causal import PackedConversations
from engine.tasks.language_model import LanguageModelTask


class Task(LanguageModelTask[ConversationTokens]):
    """See engine.tasks.Task; a row is a conversation."""

    SUMS = 3

    def tokenise(self, split: Split) -> ConversationTokens:
        """Return the tokens of a split's conversations."""
        return tokenise_conversations(split.texts, self.template, self.max_length, self.skipped)

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of tokens that the rows teach."""
        return float(self.train_tokens.targets[rows].sum()) or 1.0

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss of the rows' targets."""
        return self.forward.sum_of_losses(PackedConversations.pack(self.train_tokens, rows))

    def sums(self, tokens: ConversationTokens, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss, the tokens that the model would have written, and all targets of some rows: (3,) float64."""
        packed = PackedConversations.pack(tokens, rows)
        loss = torch.zeros((), dtype=torch.float64, device=self.plan.device)
        right = torch.zeros_like(loss)
        for states, targets in self.forward.chunks(self.forward.states(packed), packed.targets):
            logits = self.forward.logits(states)
            loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            right += (logits.argmax(dim=-1) == targets).sum()
        return torch.stack([loss, right, torch.full_like(loss, len(packed.targets))])

    def scores(self, sums: list[float]) -> dict[str, float]:
        """Return loss, perplexity and token accuracy."""
        loss, right, count = sums
        mean = loss / max(1.0, count)
        return {
            "loss": mean,
            "perplexity": float(np.exp(min(mean, 700.0))),
            "token_accuracy": right / max(1.0, count),
        }

    def base_scores(self) -> dict[str, float]:
        """Return the same metrics of the base model."""
        return self.kept_figures("scores", self.eval_tokens, lambda: self._score(self.eval_tokens, "evaluation"))

    def scores_path(self) -> Path | None:
        """Return the file that keeps them."""
        return self.figures_path("scores", self.eval_tokens)

    def answered(self, split: Split, tokens: ConversationTokens) -> list[Conversation]:
        """Return the conversations that are kept."""
        return [json.loads(split.texts[row]) for row in tokens.rows.tolist()]

    def checked_conversations(self) -> tuple[list[str], ConversationTokens]:
        """Return the evaluation conversations."""
        return [self.rows.eval.texts[row] for row in self.eval_tokens.rows.tolist()], self.eval_tokens
