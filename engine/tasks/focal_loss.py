"""Focal loss (arXiv 1708.02002): rows that are already right weigh less, so that the hard and the rare ones count."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def focal_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, gamma: float, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the sum over rows of weight · (1 - p)^gamma · cross entropy, with p the probability of the true label: ().

    logits: (rows, labels); labels: (rows,) indexes; weight: (labels,), of the true label. gamma 0 is cross entropy.
    """
    losses = cross_entropy(logits, labels, reduction="none")
    losses = (1 - torch.exp(-losses)).pow(gamma) * losses
    return (losses if weight is None else losses * weight[labels]).sum()


def focal_binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, gamma: float, pos_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return (1 - p)^gamma · binary cross entropy of each label, with p the probability of what is true: (rows, labels).

    logits, labels: (rows, labels), labels as 0 and 1; pos_weight: (labels,), of the losses where a label is true.
    """
    probability_of_truth = torch.exp(-binary_cross_entropy_with_logits(logits, labels, reduction="none"))
    losses = binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=pos_weight)
    return (1 - probability_of_truth).pow(gamma) * losses
