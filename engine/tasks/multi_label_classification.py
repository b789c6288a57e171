"""Multi-label classification: any number of labels per text, each learned by binary cross entropy on an output of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.tasks.class_weights import weights_by_label
from engine.tasks.focal_loss import focal_binary_cross_entropy
from engine.tasks.text_task import TextTask

MOST_BALANCED_WEIGHT = 100.0  # of a label that hardly any row has; more makes the loss jump from step to step


class Task(TextTask):
    """See TextTask. Labels are whether a row has each label: (rows, labels) bool.

    training.class_weights are those of the rows that have a label, as torch's `pos_weight`: balanced makes them count as
    much as the rows without it.
    """

    positive_weights: torch.Tensor | None  # (labels,), on the device; None if all are 1

    def prepare_labels(self) -> None:
        """Compute the weight of each label where it is true."""
        setting = self.config.training.class_weights
        weights = None
        if isinstance(setting, dict):
            weights = torch.tensor(weights_by_label(setting, self.rows.labels))
        elif setting == "balanced":
            labels = self.rows.train.labels
            with_label = labels.sum(axis=0).clip(1)
            ratio = (len(labels) - with_label) / with_label
            weights = torch.tensor(ratio.clip(1 / MOST_BALANCED_WEIGHT, MOST_BALANCED_WEIGHT), dtype=torch.float32)
        self.positive_weights = None if weights is None else weights.to(self.plan.device)

    def training_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return 1 where a row has a label, else 0: (rows, labels) fp32."""
        return torch.from_numpy(self.rows.train.labels[rows].astype(np.float32))

    def sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum over rows of the mean over labels of binary cross entropy, or of focal loss."""
        if self.config.loss == "focal":
            gamma = self.config.training.focal_gamma
            losses = focal_binary_cross_entropy(logits, labels, gamma, self.positive_weights)
        else:
            losses = binary_cross_entropy_with_logits(
                logits, labels, reduction="none", pos_weight=self.positive_weights
            )
        return losses.mean(dim=1).sum()
