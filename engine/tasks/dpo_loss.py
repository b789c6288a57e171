"""Direct preference optimisation (arXiv 2305.18290), with label smoothing (cDPO) and a term of the chosen answer (RPO)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from engine.config_sections import TrainingSection


@dataclass(frozen=True, slots=True)
class DpoLoss:
    """The loss of pairs of answers.

    beta: how closely the model stays to the reference. label_smoothing: share of pairs whose answers are swapped by mistake.
    rpo_alpha: weight of the mean cross entropy of a chosen answer's tokens (arXiv 2404.19733).
    """

    beta: float
    label_smoothing: float
    rpo_alpha: float

    @classmethod
    def from_config(cls, config: TrainingSection) -> DpoLoss:
        """Return the configured loss."""
        return cls(config.dpo_beta, config.label_smoothing, config.rpo_alpha)

    def rewards(self, log_probabilities: Tensor, reference: Tensor) -> Tensor:
        """Return what an answer's log-probability gained over the reference, times beta; both (pairs, 2) as (chosen, rejected)."""
        return self.beta * (log_probabilities - reference)

    def losses(self, log_probabilities: Tensor, reference: Tensor, chosen_tokens: Tensor) -> Tensor:
        """Return the loss of each pair: (pairs,).

        log_probabilities, reference: of whole answers, (pairs, 2) as (chosen, rejected). chosen_tokens: (pairs,).
        """
        rewards = self.rewards(log_probabilities, reference)
        margins = rewards[:, 0] - rewards[:, 1]
        losses = -(1 - self.label_smoothing) * logsigmoid(margins) - self.label_smoothing * logsigmoid(-margins)
        if self.rpo_alpha:
            losses = losses - self.rpo_alpha * log_probabilities[:, 0] / chosen_tokens.clamp(min=1)
        return losses


def wins(margins: Tensor) -> Tensor:
    """Return 1 for each positive margin, 0 for a negative one and 0.5 for none, which prefers neither answer."""
    return (torch.sign(margins) + 1) / 2
