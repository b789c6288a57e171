"""Texts as what a model computes, and its outputs as answers: one row for each text, or for each window of a text.

Importing this module imports no torch: a web process may never predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from engine.serve.answers import Answer, EntitiesPrediction, EntityAnswer, make_answer
from engine.serve.batch import BatchRow, RowOutput
from engine.serve.model_files import ModelInfo
from engine.serve.tokenizer import EncodedText, ServedTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from engine.data.entity_windows import Windows
    from engine.serve.adapter import ServedAdapter


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Texts, or pairs of texts, each of which the model gives outputs as a whole."""

    texts: list[EncodedText]

    def rows(self, adapter: ServedAdapter | None) -> list[BatchRow]:
        """Return what the model computes."""
        return [BatchRow(text.ids, adapter, text.types) for text in self.texts]

    def logits(self, outputs: list[RowOutput]) -> Tensor:
        """Return the logits: (texts, outputs)."""
        import torch  # deferred: takes a second

        return torch.stack([output.logits for output in outputs]).float().cpu()

    def answers(self, outputs: list[RowOutput], info: ModelInfo) -> list[Answer]:
        """Return the answer to each text."""
        return [make_answer(output, info, text.truncated) for output, text in zip(outputs, self.texts, strict=True)]


@dataclass(frozen=True, slots=True)
class EncodedWindows:
    """Texts in windows, each token of which gets outputs."""

    texts: list[str]
    windows: Windows

    @property
    def ids(self) -> list[list[int]]:
        """Return the token ids of each window."""
        offsets = self.windows.offsets.tolist()
        return [self.windows.ids[start:end].tolist() for start, end in pairwise(offsets)]

    def rows(self, adapter: ServedAdapter | None) -> list[BatchRow]:
        """Return what the model computes."""
        return [BatchRow(ids, adapter) for ids in self.ids]

    def logits(self, outputs: list[RowOutput]) -> Tensor:
        """Return the logits of the tokens that count, text by text: (counted tokens, outputs)."""
        import torch  # deferred: takes a second

        return torch.cat([output.logits for output in outputs]).float().cpu()[self.windows.counted]

    def answers(self, outputs: list[RowOutput], info: ModelInfo) -> list[Answer]:
        """Return the entities of each text."""
        from engine.data.entity_tags import find_entities  # deferred: imports scipy

        decoded = find_entities(self.logits(outputs).numpy(), self.windows, info.temperature)
        entities: list[list[EntityAnswer]] = [[] for _text in self.texts]
        for (row, start, end, label), probability in zip(
            decoded.entities.tolist(), decoded.probabilities.tolist(), strict=True
        ):
            text = self.texts[row][start:end]
            entities[row].append(EntityAnswer(text, start, end, info.labels[label], probability))
        confident: list[bool | None] = [None] * len(self.texts)
        if info.confident_from is not None:
            confident = (decoded.certainties >= info.confident_from).tolist()
        return [
            EntitiesPrediction(tuple(of_text), confident=is_confident)
            for of_text, is_confident in zip(entities, confident, strict=True)
        ]


def encode(
    tokenizer: ServedTokenizer, info: ModelInfo, texts: list[str], text_pairs: list[str] | None
) -> EncodedTexts | EncodedWindows:
    """Return texts as a model's rows. Raises ValueError if entities are asked of a tokenizer that tells no places."""
    if info.head == "token":
        return EncodedWindows(texts, tokenizer.encode_windows(texts, info.max_length))
    return EncodedTexts(tokenizer.encode(texts, info.max_length, text_pairs, info.token_types))
