"""Multi-label classification: any number of labels per text, each learned by binary cross entropy on an output of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import expit, logit
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.data.labelled_rows import Split
from engine.tasks.calibration import multi_label_calibration
from engine.tasks.class_weights import weights_by_label
from engine.tasks.focal_loss import focal_binary_cross_entropy
from engine.tasks.folds import assign_folds
from engine.tasks.multi_label_baseline import linear_micro_f1, majority_micro_f1
from engine.tasks.multi_label_metrics import choose_thresholds, cross_fit_thresholds, multi_label_metrics, worst_rows
from engine.tasks.text_task import TextTask

MOST_BALANCED_WEIGHT = 100.0  # of a label that hardly any row has; more makes the loss jump from step to step


class Task(TextTask):
    """See TextTask. Labels are whether a row has each label: (rows, labels) bool.

    training.class_weights are those of the rows that have a label, as torch's `pos_weight`: balanced makes them count as
    much as the rows without it.
    """

    positive_weights: torch.Tensor | None  # (labels,), on the device; None if all are 1
    calibration: dict[str, Any]  # of the last evaluation; empty before
    thresholds: list[float]  # of calibrated probabilities, per label; likewise

    def prepare_labels(self) -> None:
        """Compute the weight of each label where it is true."""
        self.calibration = {}
        self.thresholds = []
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

    def initial_bias(self) -> np.ndarray | None:
        """Return the log-odds of each label in the training rows; None where class weights make frequencies mean nothing."""
        if self.positive_weights is not None:
            return None
        labels = self.rows.train.labels
        bias: np.ndarray = logit((labels.sum(axis=0) + 1) / (len(labels) + 2))
        return bias

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

    def score(self, logits: np.ndarray, split: Split) -> dict[str, Any]:
        """See TextTask. Each row is decided with thresholds that were chosen on other rows."""
        return multi_label_metrics(logits, split.labels, self.rows.labels, self._cross_fitted(logits, split.labels))

    def describe(self, logits: np.ndarray) -> dict[str, Any]:
        """Return a simple model's score, the worst rows, what calibration changes, and the threshold of each label."""
        labels = self.rows.eval.labels
        self.calibration = multi_label_calibration(logits, labels)
        # Chosen on probabilities as they are, so that calibration does not change which labels a text gets.
        temperatures = np.array(self.calibration["temperature"])
        chosen = choose_thresholds(expit(logits.astype(np.float64)), labels)
        self.thresholds = expit(logit(chosen) / temperatures).tolist()
        cross_fitted = expit(logit(self._cross_fitted(logits, labels)) / temperatures)
        return {
            "baseline": {"majority_micro_f1": majority_micro_f1(self.rows.train, self.rows.eval)},
            "worst": worst_rows(logits / temperatures, self.rows.eval, self.rows.labels, cross_fitted),
            "calibration": self.calibration,
            "thresholds": dict(zip(self.rows.labels, self.thresholds, strict=True)),
        }

    def baseline(self) -> dict[str, float]:
        """Return the micro F1 of a linear model on word counts."""
        return {"linear_micro_f1": linear_micro_f1(self.rows.train, self.rows.eval)}

    def answer_settings(self) -> dict[str, Any]:
        """Return temperature and threshold of each label, and the probability from which on answers are confident."""
        if not self.calibration:
            return {}
        return {
            "temperatures": self.calibration["temperature"],
            "thresholds": self.thresholds,
            "confident_from": self.calibration["confident_from"],
        }

    def _cross_fitted(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return cross_fit_thresholds(expit(logits.astype(np.float64)), labels, assign_folds(logits))
