"""The learning rate as a function of the step alone, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from engine.config_sections import TrainingSection


def learning_rate(step: int, total: int, config: TrainingSection) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`.

    The schedules are those of the same names in transformers. The warm-up is one step ahead of theirs, so that the
    first step does not have a rate of 0.
    """
    warmup = 0 if config.lr_scheduler_type == "constant" else math.ceil(total * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if config.lr_scheduler_type == "linear":
        return config.learning_rate * max(0.0, 1 - progress)
    if config.lr_scheduler_type == "cosine":
        return config.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
    return config.learning_rate
