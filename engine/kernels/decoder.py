"""One decoder layer of the Llama kind (norm, attention, norm, SwiGLU) with its gradient written by hand, for training steps in int8.

Like engine.kernels.layer for encoders: products with frozen weights are those of engine.kernels.projection, what lies between them is
compiled, and it keeps only what the gradient needs. Conversations lie end to end, so x is (tokens, width).

    a = norm(x)        m = x + output(attention(rotate(qkv(a))))        y = m + down(swiglu(gate_up(norm(m))))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.kernels.attention import attend_heads, attend_heads_backward
from engine.kernels.int8 import kernels
from engine.kernels.projection import LowRankActivations, ProjectionGroup

MODEL_TYPES = ("llama", "mistral", "qwen2")
LONGEST_BY_HAND = 256  # tokens; of longer ones the attention weights would take more memory than all else
MOST_PADDING = 1.25  # of a rectangle of conversations, by its tokens

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Conversations of similar length, shorter ones with padding behind, which causal attention never looks at.

    tokens: (n,) int64, those of the packed batch in here; places: (n,) int64, where in the rectangle they are.
    start: the first number of its queries, keys and values in the buffer of all rectangles.
    """

    rows: int
    length: int
    tokens: Tensor
    places: Tensor
    start: int

    def fill(self, x: Tensor, heads: int) -> Tensor:
        """Return x: (tokens of the batch, heads × width) by head: (rows × heads, length, width), with zeros for padding."""
        filled = x.new_zeros(self.rows * self.length, x.shape[1])
        filled.index_copy_(0, self.places, x.index_select(0, self.tokens))
        by_head = filled.view(self.rows, self.length, heads, -1).transpose(1, 2)
        return by_head.reshape(self.rows * heads, self.length, -1)

    def take(self, by_head: Tensor, x: Tensor) -> None:
        """Write what `fill` returned, computed further, to the rows of x that are the rectangle's."""
        heads = len(by_head) // self.rows
        joined = by_head.view(self.rows, heads, self.length, -1).transpose(1, 2).reshape(self.rows * self.length, -1)
        x.index_copy_(0, self.tokens, joined.index_select(0, self.places))


class DecoderBatch:
    """Where the tokens of packed conversations lie for the attention of all layers, and their rotary positions.

    cosines, sines: (tokens, head width / 2) fp32.
    """

    def __init__(self, lengths: list[int], heads: int, cosines: Tensor, sines: Tensor) -> None:
        half = cosines.shape[-1] // 2  # the second half says the same again
        self.lengths = lengths
        self.cosines = cosines[0, :, :half].float().contiguous()
        self.sines = sines[0, :, :half].float().contiguous()
        self.heads = heads
        self.width = 2 * half
        self.rectangles: list[Rectangle] = []
        self.size = 0  # numbers of queries, keys and values of all rectangles
        self.places = torch.empty(sum(lengths), 3, dtype=torch.int64)  # see kernels.rotate_heads
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        for conversations in _of_similar_length(lengths):
            self._add_rectangle(conversations, starts)

    def _add_rectangle(self, conversations: list[int], starts: list[int]) -> None:
        rows = len(conversations)
        length = max(self.lengths[each] for each in conversations)
        tokens = torch.cat([torch.arange(starts[each], starts[each] + self.lengths[each]) for each in conversations])
        row = torch.repeat_interleave(torch.tensor([self.lengths[each] for each in conversations]))
        position = torch.cat([torch.arange(self.lengths[each]) for each in conversations])
        of_head = length * self.width
        self.places[tokens, 0] = self.size + row * self.heads * of_head + position * self.width
        self.places[tokens, 1] = of_head
        self.places[tokens, 2] = rows * self.heads * of_head
        self.rectangles.append(Rectangle(rows, length, tokens, row * length + position, self.size))
        self.size += 3 * rows * self.heads * of_head

    def rotate(self, qkv: Tensor) -> Tensor:
        """Return query, key and value of all rectangles by head, with rotary positions: (size,)."""
        by_head = qkv.new_zeros(self.size)
        kernels().rotate_heads(by_head, qkv, self.places, self.cosines, self.sines, *self._sizes(qkv))
        return by_head

    def unrotate(self, by_head: Tensor, qkv: Tensor) -> Tensor:
        """Return the gradient of what `rotate` took, written over `qkv`."""
        kernels().unrotate_heads(qkv, by_head, self.places, self.cosines, self.sines, *self._sizes(qkv))
        return qkv

    def _sizes(self, qkv: Tensor) -> tuple[int, int, int, int]:
        """Return tokens, heads, shared heads of key and value, and a head's width."""
        return len(qkv), self.heads, (qkv.shape[1] // self.width - self.heads) // 2, self.width

    def heads_of(self, by_head: Tensor) -> Iterator[tuple[Rectangle, Tensor]]:
        """Yield each rectangle with its part of a buffer: (3, rows × heads, length, width)."""
        for rectangle in self.rectangles:
            shape = (3, rectangle.rows * self.heads, rectangle.length, self.width)
            size = 3 * rectangle.rows * self.heads * rectangle.length * self.width
            yield rectangle, by_head[rectangle.start : rectangle.start + size].view(shape)


def _of_similar_length(lengths: list[int]) -> Iterator[list[int]]:
    """Yield groups of conversations, by index, of which rectangles have little padding."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        real = sum(lengths[each] for each in group) + lengths[index]
        if group and lengths[group[0]] * (len(group) + 1) > MOST_PADDING * real:
            yield group
            group = []
        group.append(index)
    yield group


class FusedDecoderLayer:
    """The weights of one layer, taken from the model's own modules."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self.qkv = ProjectionGroup([attention.q_proj, attention.k_proj, attention.v_proj], int8=True)
        self.output = ProjectionGroup([attention.o_proj], int8=True)
        self.gate_up = ProjectionGroup([layer.mlp.gate_proj, layer.mlp.up_proj], int8=True)
        self.down = ProjectionGroup([layer.mlp.down_proj], int8=True)
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

    def attend(self, qkv: Tensor, batch: DecoderBatch) -> tuple[Tensor, Tensor, list[Any]]:
        """Return the context: (tokens, heads × width), the rotated heads, and what `attend_backward` needs of each rectangle."""
        by_head = batch.rotate(qkv)
        context = qkv.new_empty(len(qkv), batch.heads * batch.width)
        kept = []
        for rectangle, heads in batch.heads_of(by_head):
            of_rectangle, weights = _attend(heads, rectangle, self.scale)
            rectangle.take(of_rectangle, context)
            kept.append(weights)
        return context, by_head, kept

    def attend_backward(self, dcontext: Tensor, by_head: Tensor, kept: list[Any], batch: DecoderBatch) -> Tensor:
        """Return the gradient of qkv: (tokens, (heads + 2 × shared heads) × width)."""
        gradients = torch.empty_like(by_head)
        parts = zip(batch.heads_of(by_head), batch.heads_of(gradients), kept, strict=True)
        for (rectangle, heads), (_, gradient), weights in parts:
            _attend_backward(rectangle.fill(dcontext, batch.heads), heads, weights, rectangle, self.scale, gradient)
        return batch.unrotate(gradients, dcontext.new_empty(len(dcontext), len(self.qkv.weight)))


def _attend(heads: Tensor, rectangle: Rectangle, scale: float) -> tuple[Tensor, Any]:
    """Return the context of a rectangle by head, and what its gradient needs. heads: (3, rows × heads, length, width)."""
    if rectangle.length <= LONGEST_BY_HAND:
        mask = torch.full((rectangle.length, rectangle.length), torch.finfo(heads.dtype).min, dtype=heads.dtype).triu(1)
        return attend_heads(heads, mask, scale)
    # torch's flash attention on CPUs is eight times slower backward in bf16 than in fp32.
    query, key, value = heads.float().unflatten(1, (rectangle.rows, -1))
    context, sums = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True, scale=scale)
    return context.to(heads.dtype).flatten(0, 1), (context, sums)


def _attend_backward(
    dcontext: Tensor, heads: Tensor, kept: Any, rectangle: Rectangle, scale: float, gradients: Tensor
) -> None:
    """Write the gradients of a rectangle's query, key and value: (3, rows × heads, length, width)."""
    if rectangle.length <= LONGEST_BY_HAND:
        attend_heads_backward(dcontext, heads, kept, scale, gradients)
        return
    by_row = heads.float().unflatten(1, (rectangle.rows, -1))
    dcontext = dcontext.float().unflatten(0, (rectangle.rows, -1))
    by_row_gradients = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dcontext, *by_row, *kept, 0.0, True, scale=scale
    )
    for gradient, of_rows in zip(gradients, by_row_gradients, strict=True):
        gradient.copy_(of_rows.flatten(0, 1))


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
    by_head: Tensor
    attention: list[Any]
    context: Tensor
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
        context, by_head, attention = layer.attend(qkv, batch)
        middle, output_low_rank = layer.output.forward(context, training=True)
        middle.add_(x)
        inner_input, inner_inverses = layer.inner_norm(middle)
        gate_up, gate_up_low_rank = layer.gate_up.forward(inner_input, training=True)
        active = gate_up.new_empty(len(x), gate_up.shape[1] // 2)
        kernels().swiglu(active, gate_up, *active.shape)
        y, down_low_rank = layer.down.forward(active, training=True)
        y.add_(middle)
        low_rank = (qkv_low_rank, output_low_rank, gate_up_low_rank, down_low_rank)
        ctx.layer = layer
        ctx.batch = batch
        # Not save_for_backward, which would keep all of them until the backward pass has ended.
        ctx.saved = _Saved(
            x, attention_input, attention_inverses, by_head, attention, context, middle,
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
        dgate_up = saved.gate_up
        kernels().swiglu_gradient(dgate_up, dactive, *dactive.shape)
        dinner, of_gate_up = layer.gate_up.backward(dgate_up, saved.inner_input, gate_up_low_rank, None, True)
        del dgate_up, dactive
        saved.gate_up = saved.inner_input = None
        layer.inner_norm.add_gradient(dx, dinner, saved.middle, saved.inner_inverses)
        dcontext, of_output = layer.output.backward(dx, saved.context, output_low_rank, None, True)
        dqkv = layer.attend_backward(dcontext, saved.by_head, saved.attention, ctx.batch)
        needs_dx = ctx.needs_input_grad[0]
        dinput, of_qkv = layer.qkv.backward(dqkv, saved.attention_input, qkv_low_rank, None, needs_dx)
        if needs_dx:
            layer.attention_norm.add_gradient(dx, dinput, saved.x, saved.attention_inverses)
        no_gradient = (None, None)  # of layer and batch
        return (dx if needs_dx else None, *no_gradient, *of_qkv, *of_output, *of_gate_up, *of_down)


def fuse_layers(model: nn.Module, is_covered: Callable[[Any], bool]) -> list[tuple[FusedDecoderLayer, nn.Module]]:
    """Let the layers of a model's training steps be computed here, if they are of the Llama kind; return them with the model's own.

    is_covered: whether a linear layer is frozen, plain or with plain LoRA. Evaluations and generation use the model's own layers.
    """
    config: Any = model.config
    if config.model_type not in MODEL_TYPES or config.hidden_act != "silu":
        return []
    layers = [layer for layer in model.get_decoder().layers if _is_plain(layer, is_covered)]  # type: ignore[operator]
    latest: list[DecoderBatch] = []  # of this step: all layers get the same lengths
    fused = [(FusedDecoderLayer(layer), layer) for layer in layers]
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
        and all(is_covered(linear) for linear in linears)
        and not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
        and len({getattr(linear, "base_layer", linear).bias is None for linear in linears[:3]}) == 1
    )


def _replace_forward(layer: Any, fused: FusedDecoderLayer, heads: int, latest: list[DecoderBatch]) -> None:
    """Let a layer of transformers compute its training steps with a fused one; in all other cases it does what it did."""
    own_forward: Callable[..., Tensor] = layer.forward
    adapted = [module for module in layer.modules() if hasattr(module, "disable_adapters")]

    def forward(hidden_states: Tensor, *arguments: Any, **options: Any) -> Tensor:
        lengths = options.get("packed_lengths")
        is_off = any(module.disable_adapters for module in adapted)
        if lengths is None or not (layer.training and torch.is_grad_enabled()) or is_off:
            return own_forward(hidden_states, *arguments, **options)
        if not latest or latest[0].lengths is not lengths:
            latest[:] = [DecoderBatch(lengths, heads, *options["position_embeddings"])]
        return fused(hidden_states[0].to(fused.qkv.weight.dtype), latest[0])[None]

    layer.forward = forward
