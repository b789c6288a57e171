"""Compute hidden states and losses of a language model without padding, and without ever holding all of its logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from engine.data.conversation_tokens import ConversationTokens
from engine.kernels.head import Int8Head
from engine.kernels.linear import AcceleratedLinears
from engine.kernels.packed_layout import PackedLayout, share_prefixes
from engine.kernels.smoothing import find_smoothing, measure_inputs
from engine.models import packed_attention
from engine.models.recomputed_layers import recompute_layer

LOGITS_AT_A_TIME = 2**24  # numbers: 64 MiB in fp32


@dataclass(frozen=True, slots=True)
class PackedConversations:
    """Conversations end to end, on the CPU.

    ids, positions: (1, tokens) int64; positions start at 0 in each conversation. lengths: tokens of each.
    sources: (targets,) int64, the tokens whose states predict the targets; targets: (targets,) int64, their ids.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    sources: Tensor
    targets: Tensor

    @classmethod
    def pack(cls, tokens: ConversationTokens, conversations: np.ndarray) -> PackedConversations:
        """Pack some conversations of `tokens`, by their indexes."""
        places = tokens.places(conversations)
        lengths = tokens.lengths[conversations].tolist()
        ids = torch.from_numpy(tokens.ids[places].astype(np.int64))
        positions = torch.cat([torch.arange(length) for length in lengths])
        is_target = torch.from_numpy(np.flatnonzero(tokens.is_target[places]))
        return cls(ids[None], positions[None], lengths, is_target - 1, ids[is_target])

    @classmethod
    def first(cls, tokens: ConversationTokens, count: int) -> PackedConversations:
        """Return the first `count` tokens, or all if there are fewer. The last token of each conversation stands for its targets."""
        ends = np.minimum(np.cumsum(tokens.lengths), count)
        lengths = [length for length in np.diff(ends, prepend=0).tolist() if length]
        ids = torch.from_numpy(tokens.ids[: ends[-1]].astype(np.int64))
        positions = torch.cat([torch.arange(length) for length in lengths])
        last = torch.tensor(lengths).cumsum(0) - 1
        return cls(ids[None], positions[None], lengths, last, ids[last])


class CausalForward:
    """The forward pass of a language model with an adapter over packed conversations.

    Puts our attention into the model; `generating` gives its own back for as long as it generates. int8: whether training steps
    multiply with the frozen weights, which are bf16, in int8. sample: some conversations by which int8 is smoothed.
    """

    def __init__(self, adapted: nn.Module, int8: bool = False, sample: PackedConversations | None = None) -> None:
        packed_attention.register()
        self.model: Any = cast(Any, adapted).get_base_model()
        self.body: nn.Module = getattr(self.model, self.model.base_model_prefix)
        self.head: nn.Module = self.model.get_output_embeddings()
        self.softcap: float | None = getattr(self.model.config, "final_logit_softcapping", None)
        self.own_attention: str = self.model.config._attn_implementation
        self.model.set_attn_implementation(packed_attention.NAME)
        self.has_dropout = any(isinstance(module, nn.Dropout) and module.p for module in self.model.modules())
        self.linears: AcceleratedLinears | None = None
        self.int8_head: Int8Head | None = None
        if int8:
            magnitudes = {} if sample is None else measure_inputs(self.model, lambda: self.logits(self.states(sample)))
            self.linears = AcceleratedLinears(self.model, int8, magnitudes)
            if type(self.head) is nn.Linear and self.head.bias is None:
                weight = self.head_weight.detach()
                self.int8_head = Int8Head(weight, find_smoothing(magnitudes, self.head, weight))

    def recompute_layers(self) -> None:
        """Keep only the input of each layer in training steps, and compute the layer again in the backward pass."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        for _fused, layer in self.linears.fused if self.linears else ():
            cast(Any, layer).gradient_checkpointing = False
            recompute_layer(layer)

    def states(self, packed: PackedConversations) -> Tensor:
        """Return the last hidden states of the tokens that predict targets: (targets, width)."""
        device = self.head_weight.device
        if self.linears is not None and torch.is_grad_enabled():
            self.linears.begin_step()
        layout = self.layout_of(packed)
        output = self.body(
            input_ids=layout.to_computed(packed.ids, dim=1).to(device),
            position_ids=layout.to_computed(packed.positions, dim=1).to(device),
            packed_layout=layout.to(device),
            use_cache=False,
        )
        sources = layout.computed_tokens()[packed.sources]
        return cast(Tensor, output.last_hidden_state[0].index_select(0, sources.to(device)))

    def layout_of(self, packed: PackedConversations) -> PackedLayout:
        """Return which tokens are computed: shared ones once, unless dropout lets each of them differ."""
        if self.has_dropout and self.model.training:
            return PackedLayout(packed.lengths)
        return share_prefixes(packed.ids[0], packed.lengths)

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of hidden states, in fp32: (states, vocabulary)."""
        logits: Tensor = self.head(states).float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def sum_of_losses(self, packed: PackedConversations) -> Tensor:
        """Return the summed cross entropy of the targets, with a gradient: ()."""
        return -self.log_probabilities(packed).sum()

    def log_probabilities(self, packed: PackedConversations) -> Tensor:
        """Return the log-probability of each target, with a gradient where gradients are on: (targets,)."""
        states = self.states(packed)
        is_frozen = not any(parameter.requires_grad for parameter in self.head.parameters())
        if is_frozen and states.requires_grad:
            return cast(Tensor, FrozenHead.apply(states, packed.targets, self))
        parts = [
            cast(Tensor, checkpoint(self.log_probabilities_of, *chunk, use_reentrant=False))
            if torch.is_grad_enabled()
            else self.log_probabilities_of(*chunk)
            for chunk in self.chunks(states, packed.targets)
        ]
        return torch.cat(parts)

    def log_probabilities_of(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return the log-probability of a chunk's targets: (targets,)."""
        return -cross_entropy(self.logits(states), targets, reduction="none")

    def log_probabilities_with_gradients(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a chunk's targets: (targets,), and the gradient of each by its state: (targets, width)."""
        if self.int8_head is not None and self.softcap is None:
            return self.int8_head.log_probabilities_with_gradients(states, targets)
        with torch.enable_grad():
            states = states.requires_grad_()
            logs = self.log_probabilities_of(states, targets)
            (gradients,) = torch.autograd.grad(logs.sum(), states)
        return logs.detach(), gradients

    def chunks(self, states: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield states and targets in parts whose logits take little memory."""
        size = max(1, LOGITS_AT_A_TIME // self.head_weight.shape[0])
        return zip(states.split(size), targets.to(states.device).split(size), strict=True)

    @property
    def head_weight(self) -> Tensor:
        """Return the matrix that computes logits: (vocabulary, width)."""
        return cast(Tensor, self.head.weight)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Give the model its own attention back inside of the block, which knows caches and padding."""
        self.model.set_attn_implementation(self.own_attention)
        try:
            yield
        finally:
            self.model.set_attn_implementation(packed_attention.NAME)


class FrozenHead(torch.autograd.Function):
    """Log-probabilities behind a frozen head.

    Each depends on the state of its own token alone, so its gradient is computed together with it, while the chunk's logits are
    there, and later only scaled.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, model: CausalForward) -> Tensor:
        """Return the log-probabilities, and keep the gradient of each by its state: (targets, width)."""
        gradients: list[Tensor] = []
        logs: list[Tensor] = []
        for chunk, chunk_targets in model.chunks(states.detach(), targets):
            chunk_logs, chunk_gradients = model.log_probabilities_with_gradients(chunk, chunk_targets)
            logs.append(chunk_logs)
            gradients.append(chunk_gradients)
        ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(states))
        return torch.cat(logs) if logs else states.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradients that are there already."""
        (by_state,) = ctx.saved_tensors
        return by_state * gradients[0].to(by_state.dtype)[:, None], None, None
