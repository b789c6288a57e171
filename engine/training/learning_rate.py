"""The learning rate as a function of the step alone, so that it needs no state of its own."""

from __future__ import annotations

import math

from engine.config import TrainingSection


def learning_rate(step: int, total: int, config: TrainingSection) -> float:
    """Rate of optimiser step `step` (from 0) of `total`, as transformers' schedules of the same names, one step ahead (no step at 0)."""
    warmup = 0 if config.lr_scheduler_type == "constant" else math.ceil(total * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if config.lr_scheduler_type == "linear":
        return config.learning_rate * max(0.0, 1 - done)
    if config.lr_scheduler_type == "cosine":
        return config.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
    return config.learning_rate
