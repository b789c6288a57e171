"""A model that shares nothing: a base model of its own with the adapter merged into its weights.

For everything that a shared base model does not cover: other architectures, DoRA, trained biases, and adapters whose
initialisation has changed the base model's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.models.forward import Forward, plain_forward
from engine.models.loading import attach_adapter, load_classifier_to_serve
from engine.models.text_encoding import longest_text, padding_side, set_padding_id
from engine.serve.batch import BatchRow, RowOutput
from engine.serve.errors import ModelUnreadableError
from engine.serve.model_files import ModelInfo

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PretrainedConfig, PreTrainedModel


class PaddedModel:
    """Computes batches of rows that are padded to the longest one.

    padding_id: the tokenizer's. Without one, as in some models of earlier releases, config.json's is used.
    """

    def __init__(
        self, forward: Forward, config: PretrainedConfig, padding_id: int | None, device: torch.device
    ) -> None:
        self.forward = forward
        self.padding_id = choose_padding_id(config, padding_id)
        self.pads_left = padding_side(config) == "left"
        self.longest_text = longest_text(config)
        self.device = device

    @torch.inference_mode()
    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        """Compute one padded batch."""
        longest = max(len(row.ids) for row in rows)
        ids = [self._fill(row.ids, self.padding_id, longest) for row in rows]
        mask = [self._fill([1] * len(row.ids), 0, longest) for row in rows]
        inputs = {"input_ids": ids, "attention_mask": mask}
        if any(row.types for row in rows):
            inputs["token_type_ids"] = [self._fill(row.types or [0] * len(row.ids), 0, longest) for row in rows]
        tensors = {name: torch.tensor(values, device=self.device) for name, values in inputs.items()}
        logits = self.forward(**tensors).float()
        outputs = logits.cpu()  # one transfer for all
        if outputs.dim() == 2:
            return [RowOutput(row) for row in outputs]
        parts = []
        for tokens, row in zip(outputs, rows, strict=True):  # (longest, outputs) with the padding
            length = len(row.ids)
            parts.append(RowOutput(tokens[len(tokens) - length :] if self.pads_left else tokens[:length]))
        return parts

    def _fill(self, values: list[int], filler: int, length: int) -> list[int]:
        """Return `values` with fillers up to a length, on the side of the padding."""
        fillers = [filler] * (length - len(values))
        return fillers + values if self.pads_left else values + fillers


class MergedModel(PaddedModel):
    """Computes exactly what plain PEFT does."""

    def __init__(self, folder: Path, base: Path, info: ModelInfo, padding_id: int | None, device: torch.device) -> None:
        model = merge_adapter(folder, base, info, padding_id)
        model.to(device)  # type: ignore[arg-type]  # transformers wraps it, and mypy takes the wrapper for the method
        super().__init__(plain_forward(model, info.max_length), model.config, padding_id, device)
        self.model: Any = model

    def embed(self, ids: list[int]) -> torch.Tensor:
        """Return the embeddings of tokens, before positions are added: (tokens, width)."""
        embeddings: torch.Tensor = self.model.get_input_embeddings()(torch.tensor(ids, device=self.device))
        return embeddings

    def logits_of_embeddings(self, embeddings: torch.Tensor, types: list[int] | None) -> torch.Tensor:
        """Return logits, with a gradient, of texts of one length: (texts, outputs) for embeddings: (texts, tokens, width)."""
        shape = embeddings.shape[:2]
        inputs = {
            "inputs_embeds": embeddings,
            "attention_mask": torch.ones(shape, dtype=torch.long, device=self.device),
        }
        if types is not None:
            inputs["token_type_ids"] = torch.tensor(types, device=self.device).expand(shape)
        logits: torch.Tensor = self.model(**inputs).logits
        return logits.float()


def merge_adapter(folder: Path, base: Path, info: ModelInfo, padding_id: int | None) -> PreTrainedModel:
    """Return the base model with the adapter's changes in its own weights, in fp32. Raises ModelUnreadableError."""
    base_model, _missing = load_classifier_to_serve(base, info.outputs, info.head)
    merged: Any = attach_adapter(base_model, folder).merge_and_unload()
    model: PreTrainedModel = merged.eval().requires_grad_(False)
    padding_id = choose_padding_id(model.config, padding_id)
    embeddings: Any = model.get_input_embeddings()
    if padding_id >= len(embeddings.weight):
        raise ModelUnreadableError(f"the base model has no embedding for its padding id {padding_id}")
    set_padding_id(model, padding_id)
    return model


def choose_padding_id(config: PretrainedConfig, padding_id: int | None) -> int:
    """Return the tokenizer's padding id or, without one, that of config.json."""
    return (config.get_text_config().pad_token_id or 0) if padding_id is None else padding_id
