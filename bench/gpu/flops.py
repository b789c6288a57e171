"""How much of the hardware a training uses: floating-point operations per token, and the peak they are held against."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.gpu.settings import Shape

# Dense bf16 peak in TFLOP/s, without sparsity, from NVIDIA's data sheets. The first name that fits counts.
PEAKS = {
    "H200": 989.0,  # H200 Tensor Core GPU data sheet, SXM
    "H100 PCIe": 756.0,  # H100 Tensor Core GPU data sheet
    "H100 NVL": 835.0,  # H100 Tensor Core GPU data sheet
    "H100": 989.0,  # H100 Tensor Core GPU data sheet, SXM
    "A100": 312.0,  # A100 Tensor Core GPU data sheet
    "L40S": 362.0,  # L40S data sheet
    "L40": 181.0,  # L40 data sheet
    "L4": 121.0,  # L4 Tensor Core GPU data sheet
    "RTX 4090": 165.0,  # Ada GPU architecture white paper: bf16 with sums in fp32
}


def flops_per_token(shape: Shape, lengths: np.ndarray) -> float:
    """Return the operations that training an adapter cannot do without, per token, padding excluded.

    These are the products of the frozen linear layers, forward and for the gradient of their inputs, and those of
    attention, forward and backward. Gradients of frozen weights are left out, since nothing needs them; so are the
    adapters' own thin products, the embeddings and the head. This is less than the usual 6 × weights × tokens.
    """
    weights = 4 * shape.width**2 + 2 * shape.width * shape.feed_forward
    length_of_mean_token = float((lengths.astype(float) ** 2).sum() / lengths.sum())
    attention = 12 * length_of_mean_token * shape.width  # 2 products of 2 operations, and twice as much backward
    return shape.layers * (4 * weights + attention)


def peak_flops(name: str, measured: float) -> tuple[float, str]:
    """Return operations a second of a device by its name, else `measured`; and which of both it is."""
    for part, teraflops in PEAKS.items():
        if part.lower() in name.lower():
            return teraflops * 1e12, "data sheet"
    return measured, "measured product"


def measure_product(device: str, dtype: Any, size: int) -> float:
    """Return the operations a second of a square matrix product of random numbers, the best of some rounds."""
    import torch

    one, other = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(4):
            torch.mm(one, other)
        synchronize(device)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - started))
    return best


def synchronize(device: str) -> None:
    """Wait until the device has done everything, before a clock is read."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
