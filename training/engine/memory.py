"""Running out of memory is met by smaller micro-batches: the same rows per step, the same result, less at a time."""

from __future__ import annotations

import gc

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def release(device: torch.device) -> None:
    """Give back what a failed attempt still holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
