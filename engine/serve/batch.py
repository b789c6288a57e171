"""What is computed at once: texts as token ids, each with the adapter that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # importing torch takes a second, and a web process may never predict
    from torch import Tensor

    from engine.serve.adapter import SequenceAdapter, ServedAdapter
    from engine.serve.key_value_cache import CachedSequence


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One text, or a pair of texts. `adapter` is None if the model that computes it has its adapter merged.

    types: of each token, which text of a pair it belongs to; None for single texts, and for models without token types.
    """

    ids: list[int]
    adapter: ServedAdapter | None = None
    types: list[int] | None = None


@dataclass(frozen=True, slots=True)
class RowOutput:
    """A model's output for one text, on the CPU: a GPU would have to be waited for with every number that is read.

    logits: (outputs,) or, of a model with outputs for each token, (tokens, outputs).
    features: (width,), the input of the head's last layer.
    """

    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True, slots=True)
class DecoderRow:
    """The next tokens of a sequence that a language model reads.

    all_ids: of the sequence so far, with those that are read now. is_last: whether the token after them is wanted.
    """

    sequence: CachedSequence
    adapter: SequenceAdapter
    ids: list[int]
    all_ids: list[int]
    is_last: bool


class BatchModel(Protocol):
    """A model in memory that computes batches of rows."""

    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        """Return the outputs in the order of `rows`, each as if its row were computed alone."""
        ...
