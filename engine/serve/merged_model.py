"""A model that shares nothing: a base model of its own with the adapter merged into its weights.

For everything that a shared base model does not cover: other architectures, DoRA, trained biases, and adapters whose
initialisation has changed the base model's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.models.forward import plain_forward
from engine.models.loading import attach_adapter, load_classifier_to_serve
from engine.serve.batch import BatchRow, RowOutput
from engine.serve.model_files import ModelInfo


class MergedModel:
    """Computes exactly what plain PEFT does."""

    def __init__(self, folder: Path, base: Path, info: ModelInfo, device: torch.device) -> None:
        base_model, _missing = load_classifier_to_serve(base, len(info.labels))
        merged: Any = attach_adapter(base_model, folder).merge_and_unload()
        model = merged.to(device).eval()
        self.forward = plain_forward(model, info.max_length)
        self.padding_id = model.config.pad_token_id or 0
        self.device = device

    @torch.inference_mode()
    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        """Compute one padded batch."""
        longest = max(len(row.ids) for row in rows)
        ids = [row.ids + [self.padding_id] * (longest - len(row.ids)) for row in rows]
        mask = [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]
        logits = self.forward(
            input_ids=torch.tensor(ids, device=self.device), attention_mask=torch.tensor(mask, device=self.device)
        ).float()
        return [RowOutput(row) for row in logits]
