"""Let a model with an adapter compute as its base model does, also in the middle of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from torch import nn

# These initial adapters are subtracted from the frozen weights: only both together are the base model.
SUBTRACTED = ("pissa", "olora")


class UntrainedModel:
    """A model with a new adapter, before its first step.

    PEFT turns an adapter off without a copy of anything. Where that is not the base model, because trained biases stay or because
    the initial adapter was subtracted from the weights, the initial values of what is trained are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(PeftModel, model)
        config = self.model.peft_config["default"]
        is_subtracted = str(getattr(config, "init_lora_weights", "")).startswith(SUBTRACTED)
        self.initial: dict[str, torch.Tensor] = {}
        if is_subtracted or getattr(config, "bias", "none") != "none":
            self.initial = {name: value.detach().clone() for name, value in self._trained()}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Let the model be the base model inside of the block, for computations without gradients."""
        if not self.initial:
            with self.model.disable_adapter():
                yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def release(self) -> None:
        """Free the initial values."""
        self.initial.clear()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]

    def _swap(self) -> None:
        for name, parameter in self._trained():
            self.initial[name], parameter.data = parameter.data, self.initial[name]
