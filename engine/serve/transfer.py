"""Move tensors to and from a GPU. It has to be waited for in each transfer, so many tensors go in a single one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def move_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return copies, on a device, of tensors of one type on another device. They are views of one buffer."""
    moved = torch.cat([tensor.flatten() for tensor in tensors]).to(device).split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(moved, tensors, strict=True)]
