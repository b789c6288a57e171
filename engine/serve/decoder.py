"""A language model in memory that reads the next tokens of several sequences in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.devices import DevicePlan
from engine.models.loading import attach_adapter, load_language_model
from engine.models.text_encoding import longest_text
from engine.serve.batch import DecoderRow
from engine.serve.generated_answer import GeneratingAnswer


class DecoderSequence:
    """What a model keeps of the tokens of one answer. length: tokens read so far; reused: those that were read before."""

    def __init__(self) -> None:
        from transformers import DynamicCache  # deferred: takes seconds

        self.length = 0
        self.reused = 0
        self.cache = DynamicCache()


class SharedDecoder:
    """A language model. adapter: a folder whose adapter is merged into it."""

    def __init__(self, base: Path, name: str, device: torch.device, adapter: Path | None = None) -> None:
        plan = DevicePlan(device, torch.float32, "sdpa", fused_encoder=False, threads=1)
        model: Any = load_language_model(base, name, plan)
        if adapter is not None:
            model = attach_adapter(model, adapter).merge_and_unload()
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.device = device
        self.longest_text = longest_text(self.model.config)
        self.vocabulary = int(self.model.config.get_text_config().vocab_size)

    def open(self, _answer: GeneratingAnswer) -> DecoderSequence | None:
        """Return a place for an answer; None if there is no room for it now."""
        return DecoderSequence()

    def close(self, sequence: DecoderSequence) -> None:
        """Give a place back."""

    @torch.inference_mode()
    def step(self, rows: list[DecoderRow]) -> list[Tensor]:
        """Read the rows' tokens; return the logits of the next token of those that are last: (vocabulary,) on the CPU."""
        results = []
        for row in rows:
            ids = torch.tensor([row.ids], device=self.device)
            output = self.model(ids, past_key_values=row.sequence.cache, use_cache=True, logits_to_keep=1)
            row.sequence.length += len(row.ids)
            if row.is_last:
                results.append(output.logits[0, -1].float().cpu())
        return results
