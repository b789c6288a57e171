"""Let checks run under the GPU's policy on any machine, and with little memory or strict determinism."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch

from engine import RunConfig, devices, memory_limits
from engine.out_of_memory import release_memory

LITTLE_BYTES = 150 * 2**20  # on a CPU, where the step that does not fit takes more
SHARE_OF_PEAK = 0.5


@contextmanager
def gpu_policy(device: str) -> Iterator[None]:
    """Let runs on a CPU take the path of a GPU: sdpa attention, packed batches, weights in 8 bits."""
    if device != "cpu":
        yield
        return
    choose = devices.choose

    def choose_as_on_gpu(config: RunConfig, *arguments: Any) -> devices.DevicePlan:
        attention = "eager" if config.training.deterministic else "sdpa"
        fused = config.model.quantization is None
        return replace(choose(config, *arguments), attention=attention, fused_encoder=fused, packed=True, int8=False)

    with patch.object(devices, "choose", choose_as_on_gpu), patch.object(devices, "refuse_quantization"):
        yield


@contextmanager
def scarce_memory(device: str) -> Iterator[None]:
    """Leave too little memory for a step like the one before, inside of the block."""
    release_memory(torch.device(device))
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(SHARE_OF_PEAK * torch.cuda.max_memory_allocated() / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    import resource  # Unix only

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_limits.used_data_bytes() + LITTLE_BYTES, before[1]))
    try:
        # The engine would raise the limit to all that the machine has free.
        with patch.object(memory_limits, "renew_limit", lambda: None):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def determinism_warnings() -> Iterator[list[str]]:
    """Collect what torch says is not deterministic, into a list that is complete after the block.

    Then let torch use any operation again.
    """
    names: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield names
        finally:
            torch.use_deterministic_algorithms(False)
            texts = {str(warning.message).split(". ")[0] for warning in caught}
            names += sorted(text for text in texts if "determinis" in text)


def missing_for_quantization(device: str, field: str) -> str:
    """Return what keeps weights in 8 or 4 bits from being trained here; empty if nothing does."""
    if find_spec("bitsandbytes") is None:
        return "needs bitsandbytes"
    # bitsandbytes on a CPU with avx512_bf16 gives no gradients in 4 bits once a model has been evaluated.
    return "needs a GPU" if device == "cpu" and field == "load_in_4bit" else ""
