"""What is computed at once: texts as token ids, each with the adapter that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One text. `adapter` is None where the model that computes it is its own."""

    ids: list[int]
    adapter: Any = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a model says of one text. logits: (labels,); features: (width,), what the last layer of the head read."""

    logits: Tensor
    features: Tensor | None = None


class Computes(Protocol):
    """Something in memory that a batch of rows can be given to."""

    def outputs(self, rows: list[Row]) -> list[Output]:
        """In the order of `rows`, each as if it were computed alone."""
        ...
