"""Regression: a score per text, learned by the squared error, or Huber's loss, of standardised scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import huber_loss, mse_loss

from engine.data.labelled_rows import Split
from engine.tasks.regression_baseline import linear_scores, mean_mae
from engine.tasks.regression_metrics import regression_metrics, scatter_sample, worst_rows
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

    def score(self, logits: np.ndarray, split: Split) -> dict[str, Any]:
        """See TextTask. Errors are in the unit of the data, the loss is that of training."""
        labels = torch.from_numpy(self._standardise(split.labels).astype(np.float32))
        loss = float(self.sum_of_losses(torch.from_numpy(logits).float(), labels)) / len(split)
        return regression_metrics(self.predicted_scores(logits), split.labels, loss)

    def describe(self, logits: np.ndarray) -> dict[str, Any]:
        """Return the error of always predicting the mean, the worst rows, and true and predicted scores for a plot."""
        predicted = self.predicted_scores(logits)
        return {
            "baseline": {"mean_mae": mean_mae(self.rows.train, self.rows.eval)},
            "worst": worst_rows(predicted, self.rows.eval),
            "scatter": scatter_sample(predicted, self.rows.eval.labels),
        }

    def baseline(self) -> dict[str, float]:
        """Return the scores of a linear model on word counts."""
        return linear_scores(self.rows.train, self.rows.eval)

    def predicted_scores(self, logits: np.ndarray) -> np.ndarray:
        """Return scores in the unit of the data: (rows,) for logits: (rows, 1)."""
        return logits[:, 0].astype(np.float64) * self.deviation + self.mean

    def _standardise(self, scores: np.ndarray) -> np.ndarray:
        return (scores - self.mean) / self.deviation
