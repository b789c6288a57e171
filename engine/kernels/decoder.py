"""One decoder layer of the Llama kind (norm, attention, norm, SwiGLU) with its gradient written by hand, for training steps in int8.

Like engine.kernels.layer for encoders: products with frozen weights are those of engine.kernels.projection, what lies between them is
compiled, and it keeps only what the gradient needs. Conversations lie end to end, so x is (tokens, width).

    a = norm(x)        m = x + output(attention(rotate(qkv(a))))        y = m + down(swiglu(gate_up(norm(m))))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.kernels.int8 import kernels
from engine.kernels.packed_layout import PackedLayout
from engine.kernels.panels import CACHE_LINE, SCRATCH, has_bf16_products
from engine.kernels.projection import LowRankActivations, ProjectionGroup
from engine.kernels.smoothing import Magnitudes
from engine.kernels.tile_sizes import BLOCK, LANES, PANEL, ROWS, rounded_up

MODEL_TYPES = ("llama", "mistral", "qwen2")


class DecoderBatch:
    """Where packed conversations lie, and the rotary positions of their computed tokens, for all layers.

    starts: of each conversation, and the end of the last one. computed: (all tokens,) the computed token of each. firsts: of each
    conversation, the first token that no conversation before it shares. cosines, sines: (tokens, head width / 2) fp32.
    """

    def __init__(self, layout: PackedLayout, heads: int, cosines: Tensor, sines: Tensor) -> None:
        half = cosines.shape[-1] // 2  # the second half says the same again
        self.layout = layout
        self.starts = torch.tensor([0, *layout.lengths]).cumsum(0)
        self.computed = layout.computed_tokens()
        self.firsts = layout.first_tokens()
        self.cosines = cosines[0, :, :half].float().contiguous()
        self.sines = sines[0, :, :half].float().contiguous()
        self.heads = heads
        self.width = 2 * half
        self.longest = max(layout.lengths)

    def attend(self, qkv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return the context: (tokens, heads × width), and the logarithms of its sums: (tokens, heads)."""
        context = qkv.new_empty(len(qkv), self.heads * self.width)
        logarithms = torch.empty(len(qkv), self.heads)
        # What a thread needs for its Room; see there.
        columns = rounded_up(self.longest, PANEL)
        room = rounded_up(columns * (6 * self.width + 6 * ROWS) + 6 * ROWS * self.width, CACHE_LINE)
        causal_attention().attend(*self._arguments(qkv, scale, room), context, logarithms)
        return context, logarithms

    def attend_backward(
        self, dcontext: Tensor, context: Tensor, logarithms: Tensor, qkv: Tensor, scale: float
    ) -> Tensor:
        """Return the gradient of what `attend` took."""
        dqkv = torch.empty_like(qkv)
        dkv = of_computed = dqkv[:, self.heads * self.width :]
        if self.layout.sharing is not None:
            dkv = qkv.new_empty(len(self.computed), dkv.shape[1])
        # What a thread needs for its GradientRoom; see there.
        columns = rounded_up(self.longest, PANEL)
        by_column = 16 * self.width + 14 * ROWS + 4 * BLOCK
        room = rounded_up(columns * by_column + (4 * ROWS + 10 * BLOCK) * self.width, CACHE_LINE)
        causal_attention().attend_gradient(
            *self._arguments(qkv, scale, room), context, logarithms, dcontext, dqkv, dkv, dkv.element_size() * dkv.stride(0)
        )  # fmt: skip
        if self.layout.sharing is not None:
            of_computed.copy_(self.layout.gradient_to_computed(dkv))
        return dqkv

    def _arguments(self, qkv: Tensor, scale: float, room: int) -> tuple[Tensor | int | float, ...]:
        """Return what both kernels get first. room: bytes that each thread needs."""
        shared = (qkv.shape[1] // self.width - self.heads) // 2  # heads of key and value
        counter = torch.zeros(1, dtype=torch.int64)
        return (
            qkv, self.starts, self.computed, self.firsts, self.cosines, self.sines, counter, SCRATCH.take(room), room,
            len(self.layout.lengths), len(qkv), self.heads, shared, self.width, scale,
        )  # fmt: skip


@cache
def causal_attention() -> ModuleType:
    """Return the compiled kernels of attention."""
    from engine.kernels import causal_attention as compiled  # deferred: imports numba and compiles

    return compiled


class FusedDecoderLayer:
    """The weights of one layer, taken from the model's own modules."""

    def __init__(self, layer: Any, magnitudes: Magnitudes) -> None:
        attention = layer.self_attn
        self.qkv = ProjectionGroup([attention.q_proj, attention.k_proj, attention.v_proj], True, magnitudes)
        self.output = ProjectionGroup([attention.o_proj], True, magnitudes)
        self.gate_up = ProjectionGroup([layer.mlp.gate_proj, layer.mlp.up_proj], True, magnitudes)
        self.down = ProjectionGroup([layer.mlp.down_proj], True, magnitudes)
        self.attention_norm = RmsNorm(layer.input_layernorm)
        self.inner_norm = RmsNorm(layer.post_attention_layernorm)
        self.scale = float(attention.scaling)

    @property
    def groups(self) -> list[ProjectionGroup]:
        """Return the groups in the order in which _DecoderLayerFunction takes parameters and returns gradients."""
        return [self.qkv, self.output, self.gate_up, self.down]

    def __call__(self, x: Tensor, batch: DecoderBatch) -> Tensor:
        """Return the layer's output: (tokens, width) for x: (tokens, width)."""
        parameters = [parameter for group in self.groups for parameter in group.parameters]
        return _DecoderLayerFunction.apply(x, self, batch, *parameters)


class RmsNorm:
    """y = x / √(average of x² + ε) · gain, with a frozen gain."""

    def __init__(self, module: Any) -> None:
        self.gains = module.weight.detach().float()
        self.epsilon = float(module.variance_epsilon)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y: (tokens, width), and what `add_gradient` needs: (tokens,)."""
        y = torch.empty_like(x)
        inverses = torch.empty(len(x))
        kernels().rms_norm(y, x, inverses, self.gains, *x.shape, self.epsilon)
        return y, inverses

    def add_gradient(self, dx: Tensor, dy: Tensor, x: Tensor, inverses: Tensor) -> None:
        """Add the gradient of x to dx."""
        kernels().add_rms_norm_gradient(dx, dy.contiguous(), x, inverses, self.gains, *x.shape)


@dataclass(slots=True)
class _Saved:
    """What the gradient of a layer needs."""

    x: Tensor
    attention_input: Tensor
    attention_inverses: Tensor
    qkv: Tensor
    context: Tensor
    logarithms: Tensor
    middle: Tensor
    inner_input: Tensor
    inner_inverses: Tensor
    gate_up: Tensor
    active: Tensor
    low_rank: tuple[LowRankActivations | None, ...]


class _DecoderLayerFunction(torch.autograd.Function):
    """The layer as one operation of autograd; see torch.autograd.Function for the protocol."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FusedDecoderLayer, batch: DecoderBatch, *parameters: Tensor) -> Tensor:
        attention_input, attention_inverses = layer.attention_norm(x)
        qkv, qkv_low_rank = layer.qkv.forward(attention_input, training=True)
        context, logarithms = batch.attend(qkv, layer.scale)
        middle, output_low_rank = layer.output.forward(context, training=True, residual=x)
        inner_input, inner_inverses = layer.inner_norm(middle)
        gate_up, active, gate_up_low_rank = layer.gate_up.forward_swiglu(inner_input)
        y, down_low_rank = layer.down.forward(active, training=True, residual=middle)
        low_rank = (qkv_low_rank, output_low_rank, gate_up_low_rank, down_low_rank)
        ctx.layer = layer
        ctx.batch = batch
        # Not save_for_backward, which would keep all of them until the backward pass has ended.
        ctx.saved = _Saved(
            x, attention_input, attention_inverses, qkv, context, logarithms, middle,
            inner_input, inner_inverses, gate_up, active, low_rank,
        )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the layer backwards. A sum passes its gradient on to both of its inputs."""
        layer: FusedDecoderLayer = ctx.layer
        saved: Any = ctx.saved  # a _Saved, whose fields are set to None when nothing needs them any more
        ctx.saved = None
        qkv_low_rank, output_low_rank, gate_up_low_rank, down_low_rank = saved.low_rank
        dx = dy.contiguous().clone()
        dactive, of_down = layer.down.backward(dx, saved.active, down_low_rank, None, True)
        saved.active = None  # tensors are freed as early as possible: this is where memory is highest
        dinner, of_gate_up = layer.gate_up.backward_swiglu(dactive, saved.gate_up, saved.inner_input, gate_up_low_rank)
        del dactive
        saved.gate_up = saved.inner_input = None
        layer.inner_norm.add_gradient(dx, dinner, saved.middle, saved.inner_inverses)
        dcontext, of_output = layer.output.backward(dx, saved.context, output_low_rank, None, True)
        dqkv = ctx.batch.attend_backward(dcontext, saved.context, saved.logarithms, saved.qkv, layer.scale)
        needs_dx = ctx.needs_input_grad[0]
        dinput, of_qkv = layer.qkv.backward(dqkv, saved.attention_input, qkv_low_rank, None, needs_dx)
        if needs_dx:
            layer.attention_norm.add_gradient(dx, dinput, saved.x, saved.attention_inverses)
        no_gradient = (None, None)  # of layer and batch
        return (dx if needs_dx else None, *no_gradient, *of_qkv, *of_output, *of_gate_up, *of_down)


def fuse_layers(
    model: nn.Module, is_covered: Callable[[Any], bool], magnitudes: Magnitudes
) -> list[tuple[FusedDecoderLayer, nn.Module]]:
    """Let the layers of a model's training steps be computed here, if they are of the Llama kind; return them with the model's own.

    is_covered: whether a linear layer is frozen, plain or with plain LoRA. Evaluations and generation use the model's own layers.
    """
    config: Any = model.config
    if config.model_type not in MODEL_TYPES or config.hidden_act != "silu" or not has_bf16_products():
        return []
    layers = [layer for layer in model.get_decoder().layers if _is_plain(layer, is_covered)]  # type: ignore[operator]
    latest: list[DecoderBatch] = []  # of this step: all layers get the same layout
    fused = [(FusedDecoderLayer(layer, magnitudes), layer) for layer in layers]
    for replacement, layer in fused:
        _replace_forward(layer, replacement, config.num_attention_heads, latest)
    return fused


def _is_plain(layer: Any, is_covered: Callable[[Any], bool]) -> bool:
    """Return whether a layer has nothing but what `_DecoderLayerFunction` computes."""
    attention = layer.self_attn
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    linears += [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    return (
        getattr(attention, "sliding_window", None) is None
        and attention.head_dim % LANES == 0
        and all(is_covered(linear) for linear in linears)
        and not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
        and len({getattr(linear, "base_layer", linear).bias is None for linear in linears[:3]}) == 1
    )


def _replace_forward(layer: Any, fused: FusedDecoderLayer, heads: int, latest: list[DecoderBatch]) -> None:
    """Let a layer of transformers compute its training steps with a fused one; in all other cases it does what it did."""
    own_forward: Callable[..., Tensor] = layer.forward
    adapted = [module for module in layer.modules() if hasattr(module, "disable_adapters")]

    def forward(hidden_states: Tensor, *arguments: Any, **options: Any) -> Tensor:
        layout = options.get("packed_layout")
        is_off = any(module.disable_adapters for module in adapted)
        if layout is None or not (layer.training and torch.is_grad_enabled()) or is_off:
            return own_forward(hidden_states, *arguments, **options)
        if not latest or latest[0].layout is not layout:
            latest[:] = [DecoderBatch(layout, heads, *options["position_embeddings"])]
        return fused(hidden_states[0].to(fused.qkv.weight.dtype), latest[0])[None]

    layer.forward = forward
