"""Learning from preferences: of two answers, a model learns to write the chosen one rather than the rejected one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.config import RunConfig
from engine.data.conversation_tokens import ConversationTokens
from engine.data.conversations import Conversation, to_json
from engine.data.labelled_rows import Rows, Split
from engine.data.preference_tokens import PreferenceTokens, tokenise_preferences
from engine.data.preferences import branches_of
from engine.devices import DevicePlan
from engine.models.causal import PackedConversations
from engine.tasks.dpo_loss import DpoLoss, wins
from engine.tasks.evaluation_mode import evaluation_mode
from engine.tasks.language_model import LanguageModelTask
from engine.tasks.reference import Reference, reference_path


class Task(LanguageModelTask[PreferenceTokens]):
    """See engine.tasks.Task; a row is a prompt with two answers. The reference is the model with its adapter off."""

    SUMS = 6

    def __init__(
        self,
        config: RunConfig,
        plan: DevicePlan,
        base: Path,
        data_file: Path | Rows | Callable[[], Rows],
        cache_dir: Path | None,
        seed: int,
    ) -> None:
        super().__init__(config, plan, base, data_file, cache_dir, seed)
        self.dpo = DpoLoss.from_config(config.training)
        precision = config.model.quantization or str(plan.dtype)

        def reference_of(tokens: PreferenceTokens) -> Reference:
            path = reference_path(cache_dir, tokens, self.hash_base_model(), precision)
            return Reference(len(tokens.rows), lambda index: self._compute_reference(tokens, index), path)

        # By the identity of the tokens: a reference belongs to one split.
        splits = [tokens for tokens in (self.train_tokens, self.eval_tokens, self.test_tokens) if tokens is not None]
        self.references = {id(tokens): reference_of(tokens) for tokens in splits}

    def tokenise(self, split: Split) -> PreferenceTokens:
        """Return the tokens of a split's preferences."""
        return tokenise_preferences(split.texts, self.template, self.max_length, self.skipped)

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of pairs."""
        return float(len(rows)) or 1.0

    def loss(self, rows: np.ndarray) -> Tensor:
        """Return the summed loss of some pairs."""
        logs = self._answer_log_probabilities(self.train_tokens, rows)
        return self._losses(logs, self.train_tokens, rows).sum()

    def sums(self, tokens: PreferenceTokens, rows: np.ndarray) -> Tensor:
        """Return the summed loss, rewards of chosen and of rejected answers, pairs whose chosen answer gained more, pairs whose chosen
        answer is likelier, and the number of pairs: (6,) float64."""
        return self._sums_of(self._answer_log_probabilities(tokens, rows), tokens, rows)

    def scores(self, sums: list[float]) -> dict[str, float]:
        """Return loss, rewards, their margin, and how often the chosen answer wins by its reward and by its probability."""
        loss, chosen, rejected, gained, likelier = (number / max(1.0, sums[-1]) for number in sums[:-1])
        return {
            "loss": loss,
            "preference_accuracy": gained,
            "reward_margin": chosen - rejected,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
            "chosen_likelier": likelier,
        }

    def base_scores(self) -> dict[str, float]:
        """Return the same metrics of the base model, which gains nothing over itself: rewards are 0, and neither answer wins."""
        rows = np.arange(len(self.eval_tokens.rows))
        logs = self._reference_of(self.eval_tokens, rows).to(self.plan.device)
        return self.scores(self._sums_of(logs, self.eval_tokens, rows).tolist())

    def evaluate(self, is_last: bool = True) -> dict[str, Any]:
        """See LanguageModelTask; also keeps the reference for further runs."""
        scores = super().evaluate(is_last)
        self._save_references()
        return scores

    def summary(self) -> dict[str, Any]:
        """See LanguageModelTask; also keeps the reference of test rows."""
        summary = super().summary()
        self._save_references()
        return summary

    def scores_path(self) -> Path | None:
        """Return the file of the reference of evaluation rows, from which the base model's scores follow."""
        return self.references[id(self.eval_tokens)].path

    def answered(self, split: Split, tokens: PreferenceTokens) -> list[Conversation]:
        """Return the prompts with their chosen answers."""
        return [branches_of(json.loads(split.texts[row]))[0] for row in tokens.rows.tolist()]

    def checked_conversations(self) -> tuple[list[str], ConversationTokens]:
        """Return both branches of the evaluation preferences."""
        preferences = [json.loads(self.rows.eval.texts[row]) for row in self.eval_tokens.rows.tolist()]
        texts = [to_json(branch) for preference in preferences for branch in branches_of(preference)]
        return texts, self.eval_tokens.branches

    def _sums_of(self, logs: Tensor, tokens: PreferenceTokens, rows: np.ndarray) -> Tensor:
        """Return `sums` by the log-probabilities of answers: (pairs, 2)."""
        reference = self._reference_of(tokens, rows).to(logs.device, logs.dtype)
        rewards = self.dpo.rewards(logs, reference)
        parts = [
            self._losses(logs, tokens, rows),
            rewards[:, 0],
            rewards[:, 1],
            wins(rewards[:, 0] - rewards[:, 1]),
            wins(logs[:, 0] - logs[:, 1]),
            torch.ones_like(logs[:, 0]),
        ]
        return torch.stack(parts).double().sum(dim=1)

    def _losses(self, logs: Tensor, tokens: PreferenceTokens, rows: np.ndarray) -> Tensor:
        """Return the loss of each pair: (pairs,). logs: log-probabilities of its answers, (pairs, 2)."""
        reference = self._reference_of(tokens, rows).to(logs.device, logs.dtype)
        chosen_tokens = torch.from_numpy(tokens.branches.targets[2 * rows]).to(logs.device)
        return self.dpo.losses(logs, reference, chosen_tokens)

    def _reference_of(self, tokens: PreferenceTokens, rows: np.ndarray) -> Tensor:
        """Return the base model's log-probabilities of the answers, on the CPU: (pairs, 2) float64."""
        return torch.from_numpy(self.references[id(tokens)].of(rows))

    def _save_references(self) -> None:
        if self.plan.world.is_main_process:
            for reference in self.references.values():
                reference.save()

    def _answer_log_probabilities(self, tokens: PreferenceTokens, rows: np.ndarray) -> Tensor:
        """Return the log-probabilities of chosen and rejected answers: (pairs, 2)."""
        branches = np.stack([2 * rows, 2 * rows + 1], axis=1).ravel()  # the chosen one, then the rejected one
        logs = self.forward.log_probabilities(PackedConversations.pack(tokens.branches, branches))
        counts = torch.from_numpy(tokens.branches.targets[branches])
        branch_of_target = torch.repeat_interleave(torch.arange(len(branches)), counts).to(logs.device)
        return logs.new_zeros(len(branches)).index_add(0, branch_of_target, logs).view(-1, 2)

    def _compute_reference(self, tokens: PreferenceTokens, index: int) -> np.ndarray:
        """Return the base model's log-probabilities of both answers of a preference: (2,) float64."""
        with evaluation_mode(self.model), self.untrained.restored():
            return self._answer_log_probabilities(tokens, np.array([index]))[0].double().cpu().numpy()
