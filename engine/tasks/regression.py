"""Regression: a score per text, learned by the squared error, or Huber's loss, of standardised scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import huber_loss, mse_loss

from engine.tasks.text_task import TextTask


class Task(TextTask):
    """See TextTask. Labels are scores in the unit of the data: (rows,) float64; the only output is a standardised score."""

    def prepare_labels(self) -> None:
        """Compute mean and standard deviation of the training scores; a deviation of 0 would make scores infinite."""
        scores = self.rows.train.labels
        self.mean = float(scores.mean())
        self.deviation = float(scores.std()) or 1.0

    @property
    def output_names(self) -> list[str]:
        """Return the name of the only output."""
        return ["score"]

    def training_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return standardised scores: (rows,) fp32."""
        return torch.from_numpy(self._standardise(self.rows.train.labels[rows]).astype(np.float32))

    def sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed squared error, or Huber loss. logits: (rows, 1); labels: (rows,), standardised."""
        if self.config.loss == "huber":
            return huber_loss(logits[:, 0], labels, reduction="sum", delta=self.config.training.huber_delta)
        return mse_loss(logits[:, 0], labels, reduction="sum")

    def answer_settings(self) -> dict[str, Any]:
        """Return what turns the output into a score in the unit of the data."""
        return {"score_mean": self.mean, "score_deviation": self.deviation}

    def predicted_scores(self, logits: np.ndarray) -> np.ndarray:
        """Return scores in the unit of the data: (rows,) for logits: (rows, 1)."""
        return logits[:, 0].astype(np.float64) * self.deviation + self.mean

    def _standardise(self, scores: np.ndarray) -> np.ndarray:
        return (scores - self.mean) / self.deviation
