"""A model that shares nothing: base model and adapter in one. For what a shared base does not know: other architectures,
DoRA, trained biases, adapters whose start has changed the base model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.serve.batch import Output, Row


class Merged:
    """The adapter is merged into weights of its own; the answers are those of plain PEFT."""

    def __init__(self, folder: Path, base: Path, labels: int, device: torch.device) -> None:
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification

        model: Any = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=labels,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
        )
        merged: Any = PeftModel.from_pretrained(model, str(folder), use_safetensors=True).merge_and_unload()
        self.model = merged.to(device).eval()
        self.pad = self.model.config.pad_token_id or 0
        self.device = device

    @torch.inference_mode()
    def outputs(self, rows: list[Row]) -> list[Output]:
        """One padded batch."""
        longest = max(len(row.ids) for row in rows)
        ids = [row.ids + [self.pad] * (longest - len(row.ids)) for row in rows]
        mask = [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        logits = self.model(**{name: tensor.to(self.device) for name, tensor in inputs.items()}).logits.float()
        return [Output(each) for each in logits]
