"""Sequence classification: one label per text, learned by cross entropy on the pooled output of an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from engine.data.labelled_rows import Split
from engine.tasks.calibration import softmax_calibration
from engine.tasks.class_weights import label_weights
from engine.tasks.focal_loss import focal_cross_entropy
from engine.tasks.linear_baseline import linear_accuracy
from engine.tasks.metrics import classification_metrics, majority_accuracy, worst_rows, wrong_rows
from engine.tasks.text_task import TextTask


class Task(TextTask):
    """See TextTask. Labels are indexes: (rows,) int64."""

    class_weights: torch.Tensor | None  # of each label in the loss: (labels,); None if all are 1
    weights_on_device: torch.Tensor | None
    calibration: dict[str, Any]  # of the last evaluation; empty before

    def prepare_labels(self) -> None:
        """Compute the weight of each label in the loss."""
        self.calibration = {}
        counts = np.bincount(self.rows.train.labels, minlength=len(self.rows.labels))
        weights = label_weights(self.config.training.class_weights, self.rows.labels, counts)
        self.class_weights = None if weights is None else torch.from_numpy(weights)
        # Both, because reading a number from a GPU waits for it.
        self.weights_on_device = None if self.class_weights is None else self.class_weights.to(self.plan.device)

    def training_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return the indexes of the labels: (rows,)."""
        return torch.from_numpy(self.rows.train.labels[rows])

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of rows, or the sum of their class weights: the mean is then that of torch's cross_entropy."""
        if self.class_weights is None:
            return float(len(rows))
        # A step whose rows all have the weight 0 has a loss of 0, not 0/0.
        return float(self.class_weights[torch.from_numpy(self.rows.train.labels[rows])].sum()) or 1.0

    def sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed cross entropy, or focal loss. labels: (rows,)."""
        training = self.config.training
        if self.config.loss == "focal":
            return focal_cross_entropy(logits, labels, training.focal_gamma, self.weights_on_device)
        return cross_entropy(
            logits,
            labels,
            weight=self.weights_on_device,
            reduction="sum",
            label_smoothing=training.label_smoothing_factor,
        )

    def score(self, logits: np.ndarray, split: Split) -> dict[str, Any]:
        """See TextTask."""
        return classification_metrics(logits, split.labels, self.rows.labels)

    def describe(self, logits: np.ndarray) -> dict[str, Any]:
        """Return the accuracy of the majority class, the worst rows and what calibration changes."""
        self.calibration = softmax_calibration(logits, self.rows.eval.labels)
        return {
            "baseline": {"majority_accuracy": majority_accuracy(self.rows.train, self.rows.eval)},
            "worst": worst_rows(logits / self.calibration["temperature"], self.rows.eval, self.rows.labels),
            "calibration": self.calibration,
        }

    def wrong_rows(self) -> list[dict[str, Any]]:
        """See engine.tasks.Task."""
        return wrong_rows(self.eval_logits / self.calibration["temperature"], self.rows.eval, self.rows.labels)

    def answer_settings(self) -> dict[str, Any]:
        """Return the temperature of the logits, and the probability from which on answers are called confident."""
        return {name: self.calibration[name] for name in ("temperature", "confident_from") if name in self.calibration}

    def baseline(self) -> dict[str, float]:
        """Return the accuracy of a linear model on word counts."""
        return {"linear_accuracy": linear_accuracy(self.rows.train, self.rows.eval)}
