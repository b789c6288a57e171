"""Handle running out of memory: process the same rows in smaller parts, which gives the same result."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from engine import memory_limits

T = TypeVar("T")
M_MMAP_THRESHOLD = -3  # the constant of malloc.h
LARGE_BLOCK = 128 * 1024  # bytes
# Estimates are within 25 % of the measured memory (test_memory.py). Trying and failing costs more than a size too
# small: it is slow, and it may leave oneDNN broken.
MARGIN = 1.25

# Messages of torch's allocators, oneDNN and safetensors, which raise a plain RuntimeError.
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "could not create a memory",
    "could not create a primitive",
    "cannot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch, CUDA or Python means that memory ran out.

    Allocators on CPUs raise a plain RuntimeError, so its message decides.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_MESSAGES)


def retry_with_half(attempt: Callable[[int], T], size: int, device: torch.device, smaller: Callable[[int], None]) -> T:
    """Return attempt(size), halving the size whenever memory runs out; `smaller` is called with each new size first.

    Raises the attempt's own error if it has another cause, or if even a size of 1 does not fit.
    """
    while True:
        try:
            return attempt(size)
        except (RuntimeError, MemoryError) as error:
            if size <= 1 or not is_out_of_memory(error):
                raise
            if "primitive" in str(error):
                # After oneDNN failed to allocate a kernel, its next kernels fail as well or crash (seen with 3.12).
                # torch's own kernels are slower but work.
                torch.backends.mkldnn.set_flags(False)
        # Retry outside of the handler: the traceback would keep the failed attempt's tensors alive.
        size = math.ceil(size / 2)
        smaller(size)
        release_memory(device)


def largest_fitting(size: int, estimate_bytes: Callable[[int], float], held_bytes: float = 0.0) -> int:
    """Return the largest of size, size/2, size/4, … ≥ 1 whose estimated memory, with a margin, is free.

    estimate_bytes: returns the bytes for a size. held_bytes: memory that the allocator already holds for this purpose and will use again.
    """
    while size > 1 and not fits(estimate_bytes(size), held_bytes):
        size = math.ceil(size / 2)
    return size


def fits(estimated_bytes: float, held_bytes: float) -> bool:
    """Return whether an estimated need, with a margin, is free beside what the allocator holds for this purpose."""
    return estimated_bytes <= held_bytes or estimated_bytes * MARGIN <= held_bytes + memory_limits.free_bytes()


def trim_heap() -> None:
    """Return the free pages of glibc's heap to the system; takes milliseconds.

    What a check before the first step has used would otherwise count against this process's limit for the whole run.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def release_memory(device: torch.device) -> None:
    """Return unused memory from Python's and torch's caches to the system, and renew this process's memory limit."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            # From now on, give large tensors their own pages, which return to the system when freed. By default glibc
            # takes them from its heap, where small live blocks leave holes that nothing larger fits into. The default
            # is faster while memory is plenty, so it stays until memory first runs short. See mallopt(3).
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
            libc.malloc_trim(0)
        memory_limits.renew_limit()
