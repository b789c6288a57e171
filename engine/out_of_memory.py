"""Running out of memory is met by smaller micro-batches: the same rows per step, the same result, less at a time."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from engine import memory_limits

T = TypeVar("T")
M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 128 * 1024  # bytes
MARGIN = 1.25  # an estimate may be off by a quarter; to try and fail may leave oneDNN broken, and that is slow

# Of torch's allocators, oneDNN and safetensors, in this order.
SIGNS = (
    "out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "could not create a memory",
    "could not create a primitive", "cannot allocate memory",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def halving(attempt: Callable[[int], T], size: int, device: torch.device, smaller: Callable[[int], None]) -> T:
    """attempt(size), again with half the size as long as memory runs out; `smaller` hears of each new size first.

    Raises the error of the attempt where it is another one, or where a size of one does not fit either.
    """
    while True:
        try:
            return attempt(size)
        except (RuntimeError, MemoryError) as error:
            if size <= 1 or not is_out_of_memory(error):
                raise
            _leave_a_broken_onednn(error)
        # Outside of the handler: the traceback would hold the failed attempt's tensors.
        size = math.ceil(size / 2)
        smaller(size)
        release(device)


def fitting(size: int, bytes_of: Callable[[int], float], held: float = 0.0) -> int:
    """The largest of size, its half, its quarter, … whose estimate is surely free beside the bytes that are held for it."""
    if bytes_of(size) <= held:
        return size
    free = held + memory_limits.free_bytes()
    while size > 1 and bytes_of(size) * MARGIN > free:
        size = math.ceil(size / 2)
    return size


def release(device: torch.device) -> None:
    """Give back what a failed attempt still holds, to the system too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu":
        _empty_the_heap()
        memory_limits.renew()


def _leave_a_broken_onednn(error: BaseException) -> None:
    """Where oneDNN got no memory for a kernel, its next ones fail too, or crash (seen with 3.12). torch's own are slower."""
    if "primitive" in str(error):
        torch.backends.mkldnn.set_flags(False)


def _empty_the_heap() -> None:
    """From now on large tensors have pages of their own, which go back when they are freed.

    glibc would keep them in its heap, where small live blocks between them leave holes that nothing larger fits into.
    That is faster while memory is plenty, so it is left alone until then. See mallopt(3).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.malloc_trim(0)
