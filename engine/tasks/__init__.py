"""Task types: what a model can learn. Each is a module of this package with a class `Task` that fulfils this contract."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.config import RunConfig
from engine.devices import DevicePlan


class Task(Protocol):
    """The data and the model of one run. The training loop knows only this contract, nothing of texts or labels.

    `rows` are always indexes into the training rows or, for evaluation batches, into the evaluation rows.
    """

    model: nn.Module  # base model with adapter, on the device
    lengths: np.ndarray  # (training rows,) tokens of each
    facts: dict[str, Any]  # JSON-ready facts about data and labels, for metrics.json and the saved model
    plan: DevicePlan  # how the model really computes, which may be less than what was planned

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return what the summed loss of these training rows is divided by to get their mean."""
        ...

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss of these training rows, a scalar with a gradient."""
        ...

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated memory in bytes of a micro-batch of `rows` rows padded to `length` tokens."""
        ...

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the number of tokens that each of these training rows is padded to."""
        ...

    def evaluation_batches(self) -> list[np.ndarray]:
        """Return the evaluation rows of each batch of an evaluation."""
        ...

    def evaluate_batch(self, rows: np.ndarray) -> object:
        """Do what `evaluate` does with one batch."""
        ...

    @property
    def test_share(self) -> float:
        """Number of test rows per evaluation row."""
        ...

    def baseline(self) -> dict[str, float]:
        """Return the scores of simple models on the evaluation rows."""
        ...

    def evaluate(self) -> dict[str, Any]:
        """Return the metrics on the evaluation rows: `loss`, `accuracy` and the like, and more for metrics.json."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return what metrics.json holds beside the last evaluation's metrics: labels, baseline, worst rows."""
        ...

    def save_extras(self, folder: Path) -> None:
        """Add to the final model what is needed to use it, such as tokenizer and label names."""
        ...

    def verify(self, folder: Path) -> None:
        """Load the final model from `folder`; raise CheckpointDamagedError unless it predicts what the trained one does.

        The trained model is unusable afterwards.
        """
        ...


def create(config: RunConfig, plan: DevicePlan, base: Path, data_file: Path, cache_dir: Path | None, seed: int) -> Task:
    """Return the configured task with its data tokenised and its model loaded from the folder `base`."""
    # Only the module of the configured task type is imported.
    return import_module(f"{__name__}.{config.task}").Task(config, plan, base, data_file, cache_dir, seed)
