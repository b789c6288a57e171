"""A language model in memory, once for all adapters over it: it reads the next tokens of several sequences in one step.

The model's own modules compute what differs between families. Its linear layers add each row's adapter, and its attention reads
from one cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.devices import DevicePlan
from engine.kernels import int8
from engine.models.loading import attach_adapter, load_language_model
from engine.models.text_encoding import longest_text
from engine.serve import cached_attention
from engine.serve.adapter import ServedAdapter
from engine.serve.batch import DecoderRow
from engine.serve.cached_attention import NewTokens
from engine.serve.frozen_linear import AdapterOfRows, CurrentRows, replace_linear_layers
from engine.serve.key_value_cache import KeyValueCache


class SharedDecoder:
    """A language model with frozen weights: adapters add to what it computes and change nothing in it.

    model: of transformers, without an adapter; its modules are replaced. cache_tokens: that the cache has room for.
    """

    def __init__(self, model: Any, device: torch.device, cache_tokens: int) -> None:
        self.model = model
        self.device = device
        cached_attention.register()
        self.model.set_attn_implementation(cached_attention.NAME)
        self.body = getattr(self.model, self.model.base_model_prefix)
        config = self.model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.vocabulary = int(config.vocab_size)
        self.current = CurrentRows()
        self.kernels = int8.decoding_kernels() if device.type == "cpu" and int8.can_compile() else None
        self.projections = replace_linear_layers(self.model, self.current, self.kernels)
        self.shapes: dict[str, tuple[int, ...]] = {
            layer.name: (layer.outputs, layer.inputs) for layer in self.projections
        }
        fuse_norms(self.model)
        self.head: Any = self.model.get_output_embeddings()
        self.cache = KeyValueCache(cache_tokens)
        self.longest_sequence = min(longest_text(config) or self.cache.tokens, self.cache.tokens)
        self._rows: dict[Hashable, AdapterOfRows] = {}  # of the latest step

    @classmethod
    def load(
        cls, base: Path, name: str, device: torch.device, cache_tokens: int, merged: Path | None = None
    ) -> SharedDecoder:
        """Load a base model in fp32. merged: a folder whose adapter becomes part of the weights."""
        plan = DevicePlan(device, torch.float32, "sdpa", fused_encoder=False, threads=1)
        model: Any = load_language_model(base, name, plan)
        if merged is not None:
            model = attach_adapter(model, merged).merge_and_unload()
        return cls(model.to(device).eval().requires_grad_(False), device, cache_tokens)

    @torch.inference_mode()
    def step(self, rows: list[DecoderRow]) -> list[Tensor]:
        """Read the rows' tokens; return the logits of the next token of those that are last: (vocabulary,), on the CPU."""
        order = sorted(range(len(rows)), key=lambda i: (rows[i].adapter.layout, id(rows[i].adapter)))
        chosen = [rows[i] for i in order]
        lengths = [len(row.ids) for row in chosen]
        sequences = [row.sequence for row in chosen]
        tokens = NewTokens(self.cache, sequences, lengths, self.device, self.kernels)
        ids = torch.tensor([token for row in chosen for token in row.ids], device=self.device)
        of_tokens = self._adapters_of([row.adapter for row in chosen], lengths)
        last = [row for row in chosen if row.is_last]
        of_last = self._adapters_of([row.adapter for row in last], [1] * len(last)) if last else of_tokens
        self._rows = {of_tokens.key: of_tokens, of_last.key: of_last}
        self.current.rows = of_tokens
        hidden = self.body(
            input_ids=ids[None], position_ids=tokens.positions[None], new_tokens=tokens, use_cache=False
        ).last_hidden_state[0]
        for row in rows:
            self.cache.advance(row.sequence, row.all_ids, len(row.ids))
        if not last:
            return []
        ends = torch.tensor(lengths).cumsum(0) - 1
        is_last = torch.tensor([row.is_last for row in chosen])
        self.current.rows = of_last
        logits: Tensor = self.head(hidden[ends[is_last].to(self.device)]).float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        logits_of = dict(zip((i for i in order if rows[i].is_last), logits.cpu(), strict=True))
        return [logits_of[i] for i in range(len(rows)) if rows[i].is_last]

    def _adapters_of(self, adapters: Sequence[ServedAdapter], lengths: Sequence[int]) -> AdapterOfRows:
        """Return whose the rows are; that of the step before if it had the same."""
        key = (*map(id, adapters), *lengths)
        return self._rows.get(key) or AdapterOfRows(key, adapters, lengths, self.device)


def fuse_norms(model: nn.Module) -> None:
    """Let torch compute the root-mean-square norms of a model in one operation each, where they are the usual ones.

    Those of Gemma, which add 1 to the weight, call their epsilon otherwise and stay as they are.
    """
    for name, module in list(model.named_modules()):
        epsilon = getattr(module, "variance_epsilon", None)
        if type(module).__name__.endswith("RMSNorm") and epsilon is not None:
            weight: Any = module.weight
            fused = nn.RMSNorm(weight.shape, eps=epsilon, device=weight.device)
            fused.weight = weight
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, fused)
