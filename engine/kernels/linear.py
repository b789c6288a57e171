"""Linear layers with LoRA inside of a model of transformers, computed by our projections in training steps.

In int8, layers of the Llama kind are computed whole (engine.kernels.decoder). Of others, the products with frozen weights are those of
engine.kernels.projection, and torch computes everything between them. Evaluations and generation use the model's own layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engine.kernels.decoder import fuse_layers
from engine.kernels.projection import LowRankActivations, ProjectionGroup, take_over_adapters
from engine.kernels.smoothing import Magnitudes


class AcceleratedLinears:
    """The LoRA layers of a model that our projections have taken over. magnitudes: how large the inputs of layers are."""

    def __init__(self, model: nn.Module, int8: bool, magnitudes: Magnitudes) -> None:
        self.groups: list[ProjectionGroup] = []
        self.fused = fuse_layers(model, is_frozen_linear, magnitudes) if int8 else []
        in_layers: set[nn.Module] = set()
        for layer, own in self.fused:
            in_layers.update(own.modules())
            self.groups += layer.groups
        for module in model.modules():
            if module not in in_layers and is_covered(module):
                group = ProjectionGroup([module], int8, magnitudes)
                self.groups.append(group)
                _replace_forward(module, group)

    def begin_step(self) -> None:
        """Take over what the optimiser has changed since the last micro-batch."""
        take_over_adapters(self.groups, training=True)


def is_covered(module: Any) -> bool:
    """Return whether a module is a plain linear layer with plain LoRA, such as PEFT makes."""
    return (
        type(module).__module__.startswith("peft.tuners.lora")
        and type(getattr(module, "base_layer", None)) is nn.Linear
        and list(module.lora_A) == ["default"]
        and not module.use_dora["default"]
        and not module.lora_bias["default"]
        and not any(parameter.requires_grad for parameter in module.base_layer.parameters())
    )


def is_frozen_linear(module: Any) -> bool:
    """Return whether a module is a linear layer that is not trained, plain or with plain LoRA."""
    is_plain = type(module) is nn.Linear and not any(parameter.requires_grad for parameter in module.parameters())
    return is_plain or is_covered(module)


def _replace_forward(module: Any, group: ProjectionGroup) -> None:
    """Let a PEFT layer compute its training steps with a group; in all other cases it does what it did."""
    own_forward: Callable[..., Tensor] = module.forward

    def forward(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if not (module.training and torch.is_grad_enabled()) or module.disable_adapters:
            return own_forward(x, *arguments, **options)
        flat = x.reshape(-1, x.shape[-1]).to(group.weight.dtype)
        y: Tensor = Projection.apply(flat, group, *group.parameters)
        return y.view(*x.shape[:-1], -1)

    module.forward = forward


class Projection(torch.autograd.Function):
    """The product of one group: x: (tokens, in) → (tokens, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProjectionGroup, *parameters: nn.Parameter) -> Tensor:
        """Keep x and what the group needs for its gradients."""
        y, low_rank = group.forward(x, training=True)
        ctx.group = group
        ctx.has_low_rank = low_rank is not None
        kept = () if low_rank is None else (low_rank.projected, low_rank.mask)
        ctx.save_for_backward(x, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and of the adapters."""
        x, *kept = ctx.saved_tensors
        low_rank = LowRankActivations(*kept) if ctx.has_low_rank else None
        dy = gradients[0].contiguous()
        dx, of_parameters = ctx.group.backward(dy, x, low_rank, None, needs_dx=ctx.needs_input_grad[0])
        return (dx, None, *of_parameters)
