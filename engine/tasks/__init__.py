"""What a model can learn. A task is a module of this package with a class `Task`; the loop knows only this contract."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.config import RunConfig
from engine.devices import Plan


class Task(Protocol):
    """One kind of learning. The loop asks for losses and metrics and knows nothing of labels or texts."""

    lengths: np.ndarray
    facts: dict[str, Any]
    plan: Plan  # after `build`, how it really computes

    def build(self) -> nn.Module:
        """The base model with its adapter, on the device; the adapter is created after the seed is set."""
        ...

    def weight(self, rows: np.ndarray) -> float:
        """What the summed loss of these training rows is divided by."""
        ...

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Summed loss of these training rows, a scalar with gradient."""
        ...

    def step_bytes(self, rows: int, length: int) -> float:
        """Estimate of the memory that a micro-batch of `rows` padded to `length` tokens takes, in bytes."""
        ...

    def padded(self, rows: np.ndarray) -> int:
        """Tokens that each of these training rows is padded to."""
        ...

    def evaluation_batches(self) -> list[np.ndarray]:
        """Eval rows of each batch of an evaluation."""
        ...

    def evaluate_batch(self, rows: np.ndarray) -> object:
        """What `evaluate` does with one batch."""
        ...

    @property
    def test_share(self) -> float:
        """Test rows for each eval row."""
        ...

    def baseline(self) -> dict[str, float]:
        """What simple models reach on the same rows."""
        ...

    def evaluate(self) -> dict[str, Any]:
        """Metrics on the eval rows; `loss`, `accuracy` and the like are numbers, the rest is for metrics.json."""
        ...

    def summary(self) -> dict[str, Any]:
        """What metrics.json holds beyond metrics: labels, baseline, worst rows."""
        ...

    def save_extras(self, folder: Path) -> None:
        """Add to the final model what is needed to use it: tokenizer, label names."""
        ...

    def verify(self, folder: Path) -> None:
        """Load the final model as a stranger would; CheckpointDamaged unless it answers as the trained one does."""
        ...


def create(config: RunConfig, plan: Plan, base: Path, data_file: Path, cache_dir: Path | None, seed: int) -> Task:
    """The task that the configuration names, with its data read and tokenised."""
    return import_module(f"{__name__}.{config.task}").Task(config, plan, base, data_file, cache_dir, seed)
