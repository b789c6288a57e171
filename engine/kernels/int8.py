"""Products with frozen weights in int8, and the operations between them in one pass over memory each.

Used for training steps on CPUs with VNNI or AMX, where int8 is twice as fast as bf16. A weight has one scale per output;
activations and their gradients have one per token, so that outliers of a token cost only its own precision
(arXiv 2208.07339, 2304.13013):

    x ≈ s_x · q_x        W ≈ s_W · q_W        x Wᵀ ≈ s_x · s_W · (q_x q_Wᵀ)

Sums are exact in 32 bits and results are bf16. The error is 1 to 2 % of the fp32 result forward and 1 to 3 % backward; bf16
alone has 0.2 %. Language models have channels that are much larger than the others, which engine.kernels.smoothing makes alike.
Evaluations use the bf16 weights, so that reported scores are those of the model that is saved.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

MIDDLE = 128  # the byte for zero: oneDNN takes unsigned activations
LARGEST = 127


@cache
def can_compile() -> bool:
    """Return whether kernels can be compiled for this machine."""
    if platform.system() != "Linux" or platform.machine() != "x86_64" or find_spec("numba") is None:
        return False
    return (Path(torch.__file__).parent / "lib/libgomp.so.1").exists()


def available() -> bool:
    """Return whether this CPU multiplies bytes faster than bf16, and the kernels can be compiled for it."""
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", None)  # private, so it may disappear from torch
    return can_compile() and has_vnni is not None and bool(has_vnni())


@cache
def kernels() -> ModuleType:
    """Return the compiled kernels. Loading them takes a second; the first start on a machine takes three to compile."""
    from engine.kernels import cpu  # deferred: imports numba and compiles

    return cpu


def decoding_kernels() -> ModuleType:
    """Return the compiled kernels for writing answers."""
    from engine.kernels import decoding  # deferred: imports numba and compiles

    return decoding


class Int8Weight:
    """A frozen weight (out, in) in int8, laid out for oneDNN, with its bias (out,).

    smoothing: what the channels of its input are divided by, (in,); see engine.kernels.smoothing.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, smoothing: Tensor | None = None) -> None:
        if smoothing is not None:
            weight = weight * smoothing
        self.factors = 0 if smoothing is None else 1 / smoothing
        smallest = torch.finfo(torch.float32).tiny  # an output of zeros must not divide by zero
        self.scales = (weight.abs().amax(1).float() / LARGEST).clamp_min(smallest)
        quantised = weight.float().div_(self.scales[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised.contiguous(), None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = torch.zeros(len(weight)) if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + bias: (tokens, out) for x: (tokens, in); both bf16."""
        quantised, scales = self.quantised(x)
        y = self.product(quantised)
        kernels().scale_rows(y, scales, self.bias, *y.shape)
        return y

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add x Wᵀ, without the bias, to total: (tokens, out), in place, and return it; all bf16."""
        quantised, scales = self.quantised(x)
        kernels().add_scaled_rows(total, self.product(quantised), scales, *total.shape)
        return total

    def quantised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x: (tokens, in) bf16 as bytes, and the scale of each token: (tokens,)."""
        x = x.contiguous()
        quantised = torch.empty_like(x, dtype=torch.uint8)
        scales = torch.empty(len(x))
        kernels().quantise_rows(x, quantised, scales, self.factors, *x.shape)
        return quantised, scales

    def product(self, quantised: Tensor) -> Tensor:
        """Return the product of (tokens, in) bytes with the weight: (tokens, out) bf16, to be multiplied by the tokens' scales."""
        return torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, MIDDLE, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )


class CompiledAddNorm:
    """The same as operations.TorchAddNorm on bf16, with the sum and its norm in one pass."""

    def __init__(self, module: nn.LayerNorm) -> None:
        self.module = module
        self.gains = module.weight.float()
        self.shifts = module.bias.float()
        self.epsilon = float(module.eps)

    def __call__(self, total: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Add x to total in place; return y: (tokens, width), and the statistics that `backward` needs."""
        y = torch.empty_like(total)
        means = torch.empty(len(total))
        inverse_deviations = torch.empty(len(total))
        kernels().add_norm(total, x, y, means, inverse_deviations, self.gains, self.shifts, *total.shape, self.epsilon)
        return y, [means, inverse_deviations]

    def backward(self, dy: Tensor, total: Tensor, statistics: list[Tensor]) -> Tensor:
        """Return the gradient of the sum: (tokens, width)."""
        dx = torch.empty_like(total)
        kernels().norm_backward(dx, dy.contiguous(), total, *statistics, self.gains, *total.shape)
        return dx


def gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return gelu(x), and gelu'(x), which overwrites x: (tokens, width) bf16.

    The slope takes the place of x, which `gelu_backward` then does not need.
    """
    y = torch.empty_like(x)
    kernels().gelu_with_slope(y, x, *x.shape)
    return y, x


def gelu_backward(dy: Tensor, slope: Tensor) -> Tensor:
    """Overwrite dy with dy · gelu'(x)."""
    return dy.mul_(slope)
